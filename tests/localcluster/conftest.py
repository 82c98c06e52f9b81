"""Clusters of this folder's own; names start with lc-, so that no other test meets them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster import Cluster, images, real


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
def busybox() -> Path:
    """An image archive; ClusterError where real nodes can't run, which says what is missing."""
    real.check_host()
    return images.busybox_archive()


@pytest.fixture(scope="module")
def pair(busybox: Path) -> Iterator[Cluster]:
    """Two real nodes with the busybox image."""
    cluster = Cluster("lc-pair").up(nodes="real:2")
    cluster.load(busybox)
    yield cluster
    cluster.down()
