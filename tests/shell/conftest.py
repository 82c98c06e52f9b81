"""An API server with the CRD, without nodes, and a proxy in front of it that can do everything a bad network does."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster import Cluster
from tests.kube import Kube, install_crds
from tests.operator_process import OperatorProcess
from tests.shell.faults import FaultyProxy

PROFILES = "default: {image: 'localhost/trainer:1', resources: {cpu: 100m, memory: 64Mi}}\n"
Start = Callable[..., OperatorProcess]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """etcd, the API server and its controllers."""
    cluster = Cluster("shell-tests")
    cluster.up(nodes="none")
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    """A client that goes straight to the API server, once the CRDs are served."""
    return install_crds(Kube(cluster.kubeconfig))


@pytest.fixture
def proxy(kube: Kube) -> Iterator[FaultyProxy]:
    """A proxy that behaves until it is told not to."""
    proxy = FaultyProxy(kube)
    yield proxy
    proxy.close()


@pytest.fixture
def start(proxy: FaultyProxy, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Start an operator that serves the test's namespace, through the proxy."""
    kubeconfig = proxy.kubeconfig(tmp_path / "kubeconfig")
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(PROFILES)
    with contextlib.ExitStack() as stack:

        def started(*, ready: bool = True, **environment: str) -> OperatorProcess:
            environment = {f"DARKROOM_{name.upper()}": value for name, value in environment.items()}
            environment = {"DARKROOM_NAMESPACES": namespace} | environment
            process = OperatorProcess(kubeconfig, profiles, tmp_path / "operator.log", **environment)
            stack.callback(process.kill)
            return process.start(ready=ready)

        yield started
