"""The Debian packages that nodes are made of."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

from localcluster.errors import ClusterError
from localcluster.progress import Report

CERTIFICATES = ("openssl",)
NODE = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "busybox-static",
    "nftables",
    "conntrack",
    "iproute2",
    "util-linux",
    "procps",
)
IMAGE_BUILDING = ("buildah", "debootstrap")


def missing(names: Iterable[str]) -> list[str]:
    """Those that dpkg doesn't know as installed; on another distribution, all of them."""
    if shutil.which("dpkg-query") is None:
        return list(names)
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def require(names: Iterable[str]) -> None:
    """Raise, naming the command that helps, unless all are installed."""
    if lacking := missing(names):
        raise ClusterError(
            f"Debian packages are missing: {' '.join(lacking)}; run `python -m localcluster setup` as root"
        )


def install(report: Report) -> None:
    """Install what is missing, Go included where there is none."""
    lacking = missing((*CERTIFICATES, *NODE, *IMAGE_BUILDING))
    if not (shutil.which("go") or shutil.which("/usr/local/go/bin/go")):
        lacking.append("golang-go")
    if not lacking:
        report("all Debian packages are installed")
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *lacking]
    if os.geteuid() != 0:
        raise ClusterError(f"installing packages needs root: run this again as root, or `sudo {' '.join(command)}`")
    if shutil.which("apt-get") is None:
        raise ClusterError(f"there is no apt-get here: install what this system calls {' '.join(lacking)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update"], command):
        report(" ".join(step))
        done = subprocess.run(step, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"{' '.join(step)} failed:\n{done.stdout[-2000:]}{done.stderr.strip()}")
