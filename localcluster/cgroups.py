"""A cgroup of its own for every node: two kubelets that share one remove each other's pods."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from localcluster.errors import ClusterError

_MOUNT = Path("/sys/fs/cgroup")
_PATIENCE = 30.0


def root(cluster: str, node: str) -> str:
    """The cgroupRoot of a node's kubelet."""
    return f"/darkroom/{cluster}/{node}"


def _is_v2() -> bool:
    return (_MOUNT / "cgroup.controllers").exists()


def _hierarchies() -> list[Path]:
    """Version 1 has a tree for each controller; two names may lead to one tree (cpu -> cpu,cpuacct)."""
    if _is_v2():
        return [_MOUNT]
    return list({folder.resolve(): None for folder in sorted(_MOUNT.iterdir()) if folder.is_dir()})


def create(path: str) -> None:
    """The cgroup in every tree, with what a kubelet wants to find there."""
    for hierarchy in _hierarchies():
        folder = hierarchy
        for part in path.strip("/").split("/"):
            if _is_v2():
                _delegate(folder)
            parent, folder = folder, folder / part
            folder.mkdir(exist_ok=True)
            # A new cpuset is empty, and no process may enter an empty one.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not _is_v2() and (folder / name).exists():
                    (folder / name).write_text((parent / name).read_text())
    if _is_v2():
        _delegate(_MOUNT / path.strip("/"))


def _delegate(folder: Path) -> None:
    """Version 2: children get a controller only when the parent hands it down."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        with suppress(OSError):  # some can't be handed down while realtime processes or such exist
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def kill(path: str) -> None:
    """Kill every process in it, in whatever depth; new ones may be born while we look, so look again."""
    deadline = time.monotonic() + _PATIENCE
    while pids := set(_pids(path)):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {sorted(pids)} of {path} do not end; a mount may hang")
        time.sleep(0.02)


def _pids(path: str) -> Iterator[int]:
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / path.strip("/")):
            with suppress(OSError):
                yield from map(int, (Path(folder) / "cgroup.procs").read_text().split())


def remove(path: str) -> None:
    """Remove it from every tree, and the folders above it that became empty."""
    kill(path)
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / path.strip("/"), topdown=False):
            _rmdir(Path(folder))
        for above in list(Path(path.strip("/")).parents)[:-1]:
            with suppress(OSError):  # another cluster, or another node, is in it
                (hierarchy / above).rmdir()


def _rmdir(folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # busy: the kernel still buries the last process
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
