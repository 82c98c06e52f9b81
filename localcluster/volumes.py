"""Claims on folders of this host; every node sees them, for the nodes share its file system."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from localcluster.api import Api
from localcluster.errors import ClusterError

_PATIENCE = 30.0
_WRITABLE, _READABLE = 0o777, 0o555


def fill(folder: Path, source: Path | None, *, read_only: bool) -> None:
    """Copy source in; pods run as users of any number, so the mode has to let all of them in."""
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None:
        if not source.is_dir():
            raise ClusterError(f"{source} isn't a folder")
        if os.geteuid() != 0:
            _open(folder, _WRITABLE)  # without root, what an earlier call closed can't be written over
        shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True)
    if read_only or source is not None:
        _open(folder, _READABLE if read_only else _WRITABLE)
    else:
        folder.chmod(_WRITABLE)


def unlock(folder: Path) -> None:
    """Let the owner delete what a read-only volume closed (root may anyway)."""
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)


def _open(folder: Path, mode: int) -> None:
    """Give everybody this mode on folders, and on files as far as it goes (x only where a file had it)."""
    for path, _, files in os.walk(folder):
        Path(path).chmod(mode)
        for name in files:
            file = Path(path, name)
            if not file.is_symlink():
                executable = 0o111 if file.stat().st_mode & stat.S_IXUSR else 0
                file.chmod((mode & ~0o111) | executable)


def claim(api: Api, folder: Path, name: str, namespace: str, size: str, *, read_only: bool) -> None:
    """Volume and claim name each other, so that no other claim can take the volume; then wait until bound."""
    volume = f"{namespace}.{name}"
    access = "ReadOnlyMany" if read_only else "ReadWriteMany"
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    api.create("/api/v1/persistentvolumes", _volume(volume, folder, name, namespace, size, access))
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    api.create(path, _claim(volume, name, size, access))
    _await_bound(api, f"{path}/{name}", access)


def _volume(volume: str, folder: Path, name: str, namespace: str, size: str, access: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": [access],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "namespace": namespace},
        },
    }


def _claim(volume: str, name: str, size: str, access: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": [access],
            "storageClassName": "",
            "volumeName": volume,
            "resources": {"requests": {"storage": size}},
        },
    }


def _await_bound(api: Api, path: str, access: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        found = api.get(path) or {}
        if found.get("spec", {}).get("accessModes", [access]) != [access]:
            raise ClusterError(f"the claim at {path} exists with another access mode: delete it and its volume first")
        phase = found.get("status", {}).get("phase")
        if phase == "Bound":
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"the claim at {path} is {phase or 'missing'} after {_PATIENCE:.0f} s, not Bound")
        time.sleep(0.05)
