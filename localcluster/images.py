"""Images of one file each, written as OCI archives without a builder, and archives into a node's store."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcluster import packages
from localcluster.errors import ClusterError
from localcluster.locks import exclusive
from localcluster.paths import cache_home

PAUSE = "localhost/darkroom/pause:1"
BUSYBOX = "localhost/darkroom/busybox:1"
_OCI = "application/vnd.oci.image"
_NOBODY = "65534:65534"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def pause_archive(pause: Path) -> Path:
    """The image that holds a pod's namespaces."""
    return _cached(PAUSE, {"pause": pause.read_bytes()}, {}, {"Entrypoint": ["/pause"]})


def busybox_archive() -> Path:
    """A small image with a shell, for tests."""
    packages.require(["busybox-static"])
    busybox = Path("/bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
    config = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "User": _NOBODY}
    return _cached(BUSYBOX, {"bin/busybox": busybox.read_bytes()}, links, config)


def _cached(name: str, files: Mapping[str, bytes], links: Mapping[str, str], config: Mapping[str, Any]) -> Path:
    """The archive, written on first use under a name that says what went in."""
    facts = [name, sorted(links.items()), sorted(config.items()), *sorted(files)]
    key = hashlib.sha256(json.dumps(facts).encode() + b"".join(files[path] for path in sorted(files))).hexdigest()
    archive = cache_home() / "bin" / f"{name.rsplit('/', maxsplit=1)[-1].replace(':', '-')}-{key[:16]}.tar"
    with exclusive(archive.parent / ".images.lock"):
        if not archive.is_file():
            staged = archive.with_suffix(".new")
            _write_archive(staged, name, _layer(files, links), config)
            staged.rename(archive)
    return archive


def _layer(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    """A tar of the root file system; times stay zero, so that the same files give the same digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder, mode in {"bin": 0o755, "etc": 0o755, "tmp": 0o1777}.items():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


def _write_archive(file: Path, name: str, layer: bytes, config: Mapping[str, Any]) -> None:
    """An OCI image layout in a tar, as the image specification lays it out."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    machine = platform.machine()
    image = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": blob(f"{_OCI}.config.v1+json", json.dumps(image).encode()),
        "layers": [blob(f"{_OCI}.layer.v1.tar+gzip", gzip.compress(layer, 6, mtime=0))],
    }
    top = blob(f"{_OCI}.manifest.v1+json", json.dumps(manifest).encode())
    # containerd takes the whole name from its own annotation, other tools from the specification's.
    top["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    entries = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [top]}).encode(),
        **blobs,
    }
    with tarfile.open(file, "w") as tar:
        for path, content in entries.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))


def fingerprint(archive: Path) -> str:
    """What identifies an archive's content without reading gigabytes: its table of contents names all digests."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.removeprefix("./") in {"index.json", "manifest.json"}:
                    content = tar.extractfile(member)
                    if content is not None:
                        return hashlib.sha256(content.read()).hexdigest()
    except (OSError, tarfile.TarError) as error:
        raise ClusterError(f"{archive} can't be read as an image archive: {error}") from error
    raise ClusterError(f"{archive} is neither an OCI nor a docker archive: no index.json, no manifest.json in it")
