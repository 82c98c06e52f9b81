"""A control plane with fake nodes that has no operator: each test starts its own, and does to it what it likes."""

from collections.abc import Iterator

import pytest

from localcluster import Cluster
from tests.kube import Kube, install_crds


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """etcd, API server, controllers, scheduler and two fake nodes."""
    cluster = Cluster("faults-tests")
    cluster.up(nodes="kwok:2")
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    """A client that goes straight to the API server, once the CRDs are served."""
    return install_crds(Kube(cluster.kubeconfig))
