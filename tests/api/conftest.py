"""An API server with the CRD in it, and nothing else: no node, no operator."""

import contextlib
import json
from collections.abc import Iterator

import pytest

from darkroom_api.crd import all_crds
from localcluster import Cluster
from tests.api.server import COLLECTIONS, Server
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
    """A connection, once the CRDs are served."""
    with contextlib.closing(Server(Kube(cluster.kubeconfig))) as server:
        crds = {"apiVersion": "v1", "kind": "List", "items": all_crds()}
        cluster.kubectl("apply", "-f", "-", input=json.dumps(crds))
        for kind, path in COLLECTIONS.items():
            eventually(lambda path=path: server.call("GET", path).accepted, what=f"{kind} is served")
        yield server
