"""Clusters of this folder's own; names start with lc-, so that no other test meets them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster import Cluster, ClusterError, images, packages, real


def eventually(check: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def fake() -> Iterator[Cluster]:
    """Fifty fake nodes."""
    cluster = Cluster("lc-fake").up(nodes="kwok:50")
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def host() -> None:
    """Skip where real nodes can't run, and say why."""
    try:
        real.check_host()
    except ClusterError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def busybox(host: None) -> Path:
    packages.require(["busybox-static"])
    return images.busybox_archive()


@pytest.fixture(scope="module")
def pair(busybox: Path) -> Iterator[Cluster]:
    """Two real nodes with the busybox image."""
    cluster = Cluster("lc-pair").up(nodes="real:2")
    cluster.load(busybox)
    yield cluster
    cluster.down()
