"""Builds the images without a container engine's daemon, once: `python scripts/images.py [operator|trainer|tensorflow|all]`.

Needs Debian's buildah and debootstrap, and root. Each image becomes one or two OCI archives in
`${XDG_CACHE_HOME:-~/.cache}/darkroom/images`, named after the content of everything that goes in: a second run builds nothing.
An image's dependencies (the trainer's are gigabytes) are an archive of their own, and the image's archive holds only what lies on
top of them. Import them in the order in which they are printed, ARCHIVE<TAB>REFERENCE on a line each; containerd then reads the
dependencies once, and after a change of the code some kilobytes:

    ctr --namespace k8s.io images import ARCHIVE

With a container engine and a registry, `docker build` on the same Dockerfiles is all that is needed (docs/guides/install.md).
"""

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom" / "images"
FORMAT = "2"  # part of every key: raise it when this script makes something else of the same inputs
KEEP = 2  # archives of one name
SUITE, PACKAGES = "trixie", "python3,python3-venv,ca-certificates"
NOT_NEEDED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
)
Json = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """An image, and the files that it is made of."""

    name: str
    dockerfile: str
    dependencies: tuple[str, ...]
    code: tuple[str, ...]


RECIPES = {
    "operator": Recipe(
        name="operator",
        dockerfile="Dockerfile",
        dependencies=("operator/requirements.txt",),
        code=("operator/darkroom_api", "operator/darkroom_operator"),
    ),
    "trainer": Recipe(
        name="trainer",
        dockerfile="trainer-image/Dockerfile",
        dependencies=("trainer-image/requirements.txt", "trainer-image/slim.py"),
        code=("operator/darkroom_api", "trainer-image/darkroom_trainer"),
    ),
    "tensorflow": Recipe(
        name="tensorflow",
        dockerfile="tests/cluster/tensorflow/Dockerfile",
        dependencies=("tests/cluster/tensorflow/requirements.txt",),
        code=("tests/cluster/tensorflow/train.py",),
    ),
}
OURS = ("operator", "trainer")  # the others are for tests
SHARED_CODE = ("LICENSE", "pyproject.toml", "scripts/image_app.py", ".dockerignore")


@dataclass(frozen=True)
class Archive:
    """An OCI archive, and the name that the image in it has once it is imported."""

    path: Path
    reference: str


class BuildError(Exception):
    """A step failed; the text has the end of its log."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", choices=[*RECIPES, "all"], nargs="?", default="all")
    parser.add_argument("--output", type=Path, help="folder that gets links to the archives")
    parser.add_argument("--base", help="an image to build on instead of one by debootstrap, as python:3.13-slim")
    options = parser.parse_args()
    try:
        for name in OURS if options.image == "all" else [options.image]:
            for archive in build(name, base=options.base):
                path = link(archive.path, options.output) if options.output else archive.path
                print(f"{path}\t{archive.reference}", flush=True)
    except BuildError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def build(name: str, base: str | None = None) -> list[Archive]:
    """The image's archives in the order of their import; made if they are not there yet."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with exclusive(CACHE / "lock"):
        return _build(RECIPES[name], base)


def _build(recipe: Recipe, base: str | None) -> list[Archive]:
    base_key = digest([FORMAT, base]) if base else base_image_key()
    below_key, top_key = keys(recipe, base_key)
    below = archive_of(f"{recipe.name}-dependencies", below_key)
    top = archive_of(recipe.name, top_key)
    if not below.path.exists():
        reference = make_image(recipe, below.path.stem, base or base_image(base_key), "--target", "dependencies")
        write_archive(below, reference)
    if not top.path.exists():
        # The last stage alone: on top of nothing it is some kilobytes, which are put on the dependencies' layers here.
        reference = make_image(recipe, top.path.stem, base or base_image(base_key), "--build-arg", "ONTO=scratch")
        write_archive(top, reference, onto=below)
    for archive in (below, top):
        os.utime(archive.path)  # the newest are kept
        prune(archive)
    return [below, top]


def archive_of(name: str, key: str) -> Archive:
    return Archive(CACHE / f"{name}-{key}.tar", f"localhost/darkroom/{name}:dev-{key}")


# --- Images, in buildah's storage ---


def base_image_key() -> str:
    return digest([FORMAT, SUITE, PACKAGES, platform.machine(), *NOT_NEEDED])


def base_image(key: str) -> str:
    """Debian with Python and nothing else: what python:3.13-slim is elsewhere."""
    name = f"base-{key}"
    if not has_image(name):
        with temporary_folder() as root:
            run("debootstrap", ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root])
            for folder in NOT_NEEDED:
                empty(root / folder)
            commit(root, name, "--env", "PATH=/usr/local/bin:/usr/bin:/bin")
    return stored(name)


def stored(name: str) -> str:
    """An image's name in buildah's storage."""
    return f"localhost/{name}"


def make_image(recipe: Recipe, name: str, base: str, *extra: str) -> str:
    """Run the Dockerfile; the result's name in the storage."""
    with temporary_folder() as folder:
        how = ("--layers", "--isolation", "chroot", "--network", "host", "--build-arg", f"BASE={base}")
        what = ("--tag", stored(name), "--file", recipe.dockerfile, ".")
        run(name, [*buildah(), "bud", *how, *extra, *secrets(folder), *what])
    return stored(name)


def commit(root: Path, name: str, *config: str) -> str:
    """An image of one layer: a folder."""
    container = output([*buildah(), "from", "scratch"])
    run(name, [*buildah(), "add", "--quiet", container, root, "/"])
    run(name, [*buildah(), "config", *config, container])
    run(name, [*buildah(), "commit", "--quiet", "--rm", container, stored(name)])
    return stored(name)


def has_image(name: str) -> bool:
    command = [*buildah(), "inspect", "--type", "image", stored(name)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def buildah() -> list[str | Path]:
    """Buildah with a storage of its own: nothing of the machine's is read, and removing the cache removes all."""
    if os.geteuid() != 0:
        raise BuildError("debootstrap and buildah's chroot isolation need root")
    return ["buildah", "--root", CACHE / "storage", "--runroot", CACHE / "run", "--storage-driver", "overlay"]


def secrets(folder: Path) -> list[str]:
    """How this machine's pip reaches its index, for the one step that installs; nothing of it stays in the image."""
    settings, bundle = pip_settings(os.environ)
    if bundle:
        settings["cert"] = "/run/secrets/ca.crt"
    file = folder / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    found = ["--secret", f"id=pip.conf,src={file}"]
    return [*found, "--secret", f"id=ca.crt,src={bundle}"] if bundle else found


def pip_settings(environment: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """What pip is told here about its index, and the bundle of certificates that it trusts."""
    wanted = ("index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout", "timeout", "retries")
    settings = pip_files(environment)
    for key in (*wanted, "cert"):
        if value := environment.get(f"PIP_{key.upper().replace('-', '_')}"):
            settings[key] = value
    bundle = settings.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE")
    return {key: settings[key] for key in wanted if key in settings}, bundle


def pip_files(environment: Mapping[str, str]) -> dict[str, str]:
    """Section [global] of pip's configuration files, later ones over earlier ones."""
    home = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    parser = configparser.RawConfigParser()
    parser.read(["/etc/pip.conf", Path.home() / ".pip/pip.conf", home / "pip/pip.conf"])
    if own := environment.get("PIP_CONFIG_FILE"):
        parser.read(own)
    return dict(parser["global"]) if parser.has_section("global") else {}


# --- Archives ---


def write_archive(archive: Archive, stored_image: str, onto: Archive | None = None) -> None:
    """An OCI archive of an image; with `onto`, of its layers on top of another's, whose blobs are then left out.

    Transport `dir` gives layers as they are; buildah's `oci` compresses them whatever it is told, which is minutes for gigabytes.
    """
    with temporary_folder() as folder:
        push = ("push", "--quiet", "--disable-compression", "--format", "oci")
        run(f"{archive.path.stem}-export", [*buildah(), *push, stored_image, f"dir:{folder}"])
        manifest = json.loads((folder / "manifest.json").read_text())
        config = json.loads((folder / hex_of(manifest["config"])).read_text())
        own = {hex_of(layer): folder / hex_of(layer) for layer in manifest["layers"]}
        if onto:
            manifest, config = rebased(manifest, config, *read_archive(onto.path))
        with step(f"write {archive.path.name}"):
            write_layout(archive, manifest, config, own)


def rebased(manifest: Json, config: Json, below_manifest: Json, below_config: Json) -> tuple[Json, Json]:
    """An image's manifest and configuration, had it been built on the other."""
    environment = dict(pair.split("=", 1) for pair in (*variables(below_config), *variables(config)))
    config["config"]["Env"] = [f"{key}={value}" for key, value in environment.items()]
    config["rootfs"]["diff_ids"] = below_config["rootfs"]["diff_ids"] + config["rootfs"]["diff_ids"]
    config["history"] = below_config.get("history", []) + config.get("history", [])
    return manifest | {"layers": below_manifest["layers"] + manifest["layers"]}, config


def variables(config: Json) -> list[str]:
    return config["config"].get("Env") or []


def write_layout(archive: Archive, manifest: Json, config: Json, layers: Mapping[str, Path]) -> None:
    """A tar of an OCI image layout; it gets its name when it is whole."""
    config_text = json.dumps(config).encode()
    manifest["config"] |= {"digest": sha256(config_text), "size": len(config_text)}
    manifest_text = json.dumps(manifest).encode()
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(manifest_text),
        "size": len(manifest_text),
        "annotations": {
            "org.opencontainers.image.ref.name": archive.reference,
            "io.containerd.image.name": archive.reference,
        },
    }
    partial = archive.path.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        add_bytes(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add_bytes(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        add_bytes(tar, f"blobs/sha256/{hex_of(entry)}", manifest_text)
        add_bytes(tar, f"blobs/sha256/{hex_of(manifest['config'])}", config_text)
        for name, path in layers.items():
            tar.add(path, f"blobs/sha256/{name}")
    partial.rename(archive.path)


def read_archive(path: Path) -> tuple[Json, Json]:
    """Manifest and configuration of an archive's image."""
    with tarfile.open(path) as tar:

        def member(name: str) -> Json:
            return json.load(tar.extractfile(name))  # type: ignore[arg-type]

        manifest = member(f"blobs/sha256/{hex_of(member('index.json')['manifests'][0])}")
        return manifest, member(f"blobs/sha256/{hex_of(manifest['config'])}")


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def hex_of(descriptor: Json) -> str:
    return descriptor["digest"].removeprefix("sha256:")


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def prune(archive: Archive) -> None:
    """Keep the newest archives of this name, and the images that they are made of."""
    name = archive.path.stem.rsplit("-", 1)[0]
    same = [path for path in CACHE.glob(f"{name}-*.tar") if path.stem.rsplit("-", 1)[0] == name]
    for old in sorted(same, key=lambda path: path.stat().st_mtime, reverse=True)[KEEP:]:
        old.unlink()
        if has_image(old.stem):
            run("prune", [*buildah(), "rmi", stored(old.stem)])
            run("prune", [*buildah(), "rmi", "--prune"])  # stages without a name that led to it


def link(archive: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / archive.name
    target.unlink(missing_ok=True)
    target.symlink_to(archive)
    return target


# --- Keys ---


def keys(recipe: Recipe, base_key: str) -> tuple[str, str]:
    """What names the dependencies' archive, and the image's."""
    below = digest([FORMAT, base_key, dependencies_part(recipe), *contents(recipe.dependencies)])
    return below, digest([below, *contents((recipe.dockerfile, *SHARED_CODE, *recipe.code))])


def digest(parts: Iterable[str]) -> str:
    """Twelve hex digits that differ when any part differs."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def contents(paths: Iterable[str]) -> Iterator[str]:
    """Names and hashes of files, and of the files below folders."""
    for path in paths:
        top = ROOT / path
        files = sorted(file for file in top.rglob("*") if file.is_file()) if top.is_dir() else [top]
        for file in files:
            if "__pycache__" not in file.parts:
                yield f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}"


def dependencies_part(recipe: Recipe) -> str:
    """The Dockerfile up to the end of its first stage, comments left out."""
    lines = [line for line in (ROOT / recipe.dockerfile).read_text().splitlines() if line and not line.startswith("#")]
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    return "\n".join(lines[: starts[1]])


# --- Steps ---


def run(name: str, command: list[str | Path]) -> None:
    """Run a step; say how long it took, or how its log ended."""
    log = CACHE / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    (CACHE / "tmp").mkdir(exist_ok=True)
    if not shutil.which(str(command[0])):
        raise BuildError(f"no {command[0]} here: apt-get install {command[0]}")
    with step(name), log.open("w") as file:
        environment = os.environ | {"TMPDIR": str(CACHE / "tmp")}
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, env=environment, check=False).returncode
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise BuildError(f"{name} failed with {code}; the end of {log}:\n{tail}")


def output(command: list[str | Path]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{command[0]}: {result.stderr.strip()}")
    return result.stdout.strip()


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"images: {text} {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """One build at a time on this machine."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    parent = CACHE / "tmp"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        root = Path(folder)
        root.chmod(0o755)  # it becomes the root of an image
        yield root


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


if __name__ == "__main__":
    sys.exit(main())
