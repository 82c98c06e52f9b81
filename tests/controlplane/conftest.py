"""A real control plane with fake nodes: pods run when KWOK says so, and end as an annotation tells them to."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from localcluster import Cluster
from tests.kube import Kube, eventually, install_crds
from tests.operator_process import OperatorProcess, free_port
from tests.otlp import Collector

PROFILES = """
default: {image: "localhost/trainer:test", resources: {cpu: 100m, memory: 64Mi}, terminationGracePeriodSeconds: 5}
pair: {image: "localhost/trainer:test", nodeSelector: {pair: "true"}, resources: {cpu: 100m, memory: 64Mi}}
claims:
  image: "localhost/trainer:test"
  priorityClasses: [urgent]
  resourceClaims: [{name: gpu, resourceClaimTemplateName: one-gpu, accelerators: 1}]
whole-node: {image: "localhost/trainer:test", resources: {cpu: 90, memory: 64Mi}, terminationGracePeriodSeconds: 5}
patient: {image: "localhost/trainer:test", resources: {cpu: 100m, memory: 64Mi}, terminationGracePeriodSeconds: 300}
billed:
  image: "localhost/trainer:test"
  resources: {cpu: 100m, memory: 64Mi, nvidia.com/gpu: 1}
  terminationGracePeriodSeconds: 5
  pricePerAcceleratorHour: "3600"
  currency: EUR
fenced:
  resources: {cpu: 100m, memory: 64Mi}
  terminationGracePeriodSeconds: 5
  networkPolicy: {egress: [{cidr: 10.20.0.0/16, ports: [443]}]}
"""
CHART = Path(__file__).resolve().parents[2] / "charts/darkroom"
RELEASE = "darkroom-system"
ACCOUNT = f"system:serviceaccount:{RELEASE}:darkroom"
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Secret")
_numbers = itertools.count(1)


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
    """A client, with the CRDs installed."""
    kube = Kube(cluster.kubeconfig)
    install_crds(kube)
    return kube


@pytest.fixture(scope="session")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profiles file of the shared operator."""
    file = tmp_path_factory.mktemp("profiles") / "profiles.yaml"
    file.write_text(PROFILES)
    return file


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
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace for one test."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    eventually(lambda: kube.get("ServiceAccount", name, "default"), what="default service account")
    yield name
    kube.delete("Namespace", None, name)


class Flowers:
    """A TrainingJob in a namespace, and what a test does to it."""

    def __init__(self, kube: Kube, namespace: str, name: str = "flowers", **spec: Any) -> None:
        self.kube, self.namespace, self.name = kube, namespace, name
        container = {"image": "localhost/mine:1", "command": ["torchrun", "train.py"]}
        self.body = kube.create(
            {
                "apiVersion": "darkroom.dev/v1alpha1",
                "kind": "TrainingJob",
                "metadata": {"name": name},
                "spec": {"container": container, "numNodes": 2, "restart": {"backoffSeconds": 0}} | spec,
            },
            namespace,
        )

    @classmethod
    def existing(cls, kube: Kube, namespace: str, name: str = "flowers") -> Self:
        """One that somebody else has made."""
        flowers = cls.__new__(cls)
        flowers.kube, flowers.namespace, flowers.name = kube, namespace, name
        flowers.body = flowers.now
        return flowers

    @property
    def now(self) -> dict[str, Any]:
        return self.kube.get("TrainingJob", self.namespace, self.name) or {}

    @property
    def status(self) -> dict[str, Any]:
        return self.now.get("status", {})

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message."""
        for condition in self.status.get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"], condition["message"]
        return "absent", "", ""

    def edit(self, **spec: Any) -> None:
        self.kube.merge("TrainingJob", self.namespace, self.name, {"spec": spec})

    def reaches(self, state: str, *, within: float = 30.0) -> dict[str, Any]:
        """Wait for a state; returns the status."""
        eventually(
            lambda: self.status.get("state") == state, within=within, what=f"{self.name}: {state}: {self.status}"
        )
        return self.status

    def pods(self, attempt: int) -> list[dict[str, Any]]:
        selector = f"darkroom.dev/training-job={self.name},darkroom.dev/attempt={attempt}"
        found = self.kube.list("Pod", self.namespace, selector)
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    def end(self, attempt: int, *codes: int, **annotations: str) -> None:
        """End the pods of an attempt by index, as KWOK is told by annotation."""
        eventually(lambda: len(self.pods(attempt)) >= len(codes), what=f"pods of attempt {attempt}")
        for pod, code in zip(self.pods(attempt), codes, strict=False):
            prefix = "localcluster.darkroom.dev/"
            notes = {f"{prefix}exit-code": str(code)} | {
                f"{prefix}{k.replace('_', '-')}": v for k, v in annotations.items()
            }
            patch = {"metadata": {"annotations": notes}}
            self.kube.merge("Pod", self.namespace, pod["metadata"]["name"], patch)


@pytest.fixture
def flowers(kube: Kube, operator: OperatorProcess, namespace: str) -> Any:
    """Makes the test's TrainingJob."""
    return lambda **spec: Flowers(kube, namespace, **spec)
