"""A control plane with fake nodes that has no operator: each test starts its own, and does to it what it likes."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import Cluster
from tests.flowers import PROFILES
from tests.kube import Kube, eventually, install_crds

_numbers = itertools.count(1)


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
    kube = Kube(cluster.kubeconfig)
    install_crds(kube)
    return kube


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace for one test."""
    name = f"faults-{os.getpid()}-{next(_numbers)}"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    eventually(lambda: kube.get("ServiceAccount", name, "default"), what="default service account")
    yield name
    kube.delete("Namespace", None, name)


@pytest.fixture(scope="session")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profiles file of every operator here."""
    file = tmp_path_factory.mktemp("profiles") / "profiles.yaml"
    file.write_text(PROFILES)
    return file
