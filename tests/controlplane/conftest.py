"""A real control plane with fake nodes: pods run when KWOK says so, and end as an annotation tells them to."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import Cluster
from tests.flowers import PROFILES, Flowers
from tests.kube import Kube, eventually, install_crds
from tests.operator_process import OperatorProcess, free_port
from tests.otlp import Collector

CHART = Path(__file__).resolve().parents[2] / "charts/darkroom"
RELEASE = "darkroom-system"
ACCOUNT = f"system:serviceaccount:{RELEASE}:darkroom"
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Secret")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """test_rights judges what the other tests of this folder did, so it is the last of them."""
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    if here:
        first = items.index(here[0])
        ordered = sorted(here, key=lambda item: item.path.name == "test_rights.py")
        items[:] = [*items[:first], *ordered, *(item for item in items[first:] if item not in here)]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """etcd, API server with an audit log and the gang scheduling API, controllers, scheduler and four fake nodes."""
    cluster = Cluster("controlplane-tests")
    cluster.up(nodes="kwok:4", audit=True, gangs=True)
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    """A client that goes straight to the API server, once the CRDs are served."""
    return install_crds(Kube(cluster.kubeconfig))


@pytest.fixture(scope="session")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profiles file of the shared operator, which a test may change for a while."""
    return Path(shutil.copy(PROFILES, tmp_path_factory.mktemp("profiles")))


def is_limit(obj: dict[str, Any]) -> bool:
    """A policy that limits the operator; the one about the status would limit the operators that run as the administrator."""
    return obj["kind"].startswith("ValidatingAdmissionPolicy") and not obj["metadata"]["name"].endswith("-status")


@pytest.fixture(scope="session")
def rights(cluster: Cluster, kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The operator's account and rights as the chart renders them, put in force; returns the (Cluster)Roles bound to it."""
    home = tmp_path_factory.mktemp("helm")
    command = [cluster.bin / "helm", "template", "darkroom", CHART, "--namespace", RELEASE]
    text = subprocess.run(
        command, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, check=True
    ).stdout
    objects = [obj for obj in yaml.safe_load_all(text) if obj and (obj["kind"] in RIGHTS or is_limit(obj))]
    if kube.get("Namespace", None, RELEASE) is None:
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE}})
    cluster.kubectl("apply", "--server-side", "--filename", "-", input=yaml.safe_dump_all(objects))
    bound = [obj["roleRef"]["name"] for obj in objects if obj["kind"].endswith("RoleBinding")]
    return [obj for obj in objects if obj["kind"].endswith("Role") and obj["metadata"]["name"] in bound]


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """What the shared operator sends its traces to."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def operator(
    cluster: Cluster,
    kube: Kube,
    rights: list[dict[str, Any]],
    profiles: Path,
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    """One operator that takes live reports, with the rights of the chart and no others. Who kills it starts it again."""
    folder = tmp_path_factory.mktemp("operator")
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    token = cluster.kubectl("create", "token", "darkroom", "--namespace", RELEASE, "--duration", "24h").strip()
    config["users"][0]["user"] = {"token": token}
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    port = free_port()
    settings = {
        "DARKROOM_DISCOVERY_SECONDS": "1",
        "DARKROOM_OBJECT_SERIES": "1000",
        "DARKROOM_LEASE": f"{RELEASE}/darkroom",
        "DARKROOM_REPORTS_ADDRESS": f"127.0.0.1:{port}",
        "DARKROOM_REPORTS_PORT": str(port),
        "DARKROOM_REPORTS_SECRET": f"{RELEASE}/darkroom-reports",
        "DARKROOM_TRACING_ENDPOINT": collector.endpoint,
    }
    with OperatorProcess(folder / "kubeconfig", profiles, folder / "operator.log", **settings) as process:
        eventually(lambda: kube.get("Secret", RELEASE, "darkroom-reports").get("data"), what="a certificate")
        yield process


@pytest.fixture
def flowers(kube: Kube, operator: OperatorProcess, namespace: str) -> Any:
    """Makes the test's TrainingJob."""
    return lambda **spec: Flowers(kube, namespace, **spec)
