"""An API server with the CRD in it, and nothing else: no node, no operator."""

import contextlib
import json
from collections.abc import Iterator

import pytest

from darkroom_api.crd import training_job_crd
from localcluster import Cluster
from tests.api.server import JOBS, Server
from tests.kube import Kube, eventually


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """etcd, the API server and its controllers."""
    cluster = Cluster("api-tests")
    cluster.up(nodes="none")
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def server(cluster: Cluster) -> Iterator[Server]:
    """A connection, once the CRD is served."""
    with contextlib.closing(Server(Kube(cluster.kubeconfig))) as server:
        cluster.kubectl("apply", "-f", "-", input=json.dumps(training_job_crd()))
        eventually(lambda: server.call("GET", JOBS).accepted, what="trainingjobs are served")
        yield server
