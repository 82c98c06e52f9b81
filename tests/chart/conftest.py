"""The chart, rendered and installed by both Helms on a real API server, with two fake nodes."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import Cluster
from tests.tools import tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/darkroom"
NAMESPACE = "darkroom-system"
Object = dict[str, Any]


class Helm:
    """Helm, with the kubeconfig of a cluster where one is needed."""

    def __init__(self, binary: Path, home: Path, kubeconfig: Path | None = None) -> None:
        self.command = [str(binary), *(["--kubeconfig", str(kubeconfig)] if kubeconfig else [])]
        self.environment = {f"HELM_{name}_HOME": str(home) for name in ("CACHE", "CONFIG", "DATA")} | {
            "HOME": str(home)
        }

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*self.command, *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def run(self, *arguments: str | Path) -> str:
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


Render = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def offline_cluster() -> Cluster:
    """For its programs; it is not started."""
    return Cluster("chart-tests")


def binaries(cluster: Cluster) -> dict[str, Path]:
    """Helm by its major version."""
    return {"3": tool("helm3"), "4": cluster.bin / "helm"}


@pytest.fixture(scope="session", params=["3", "4"])
def each_offline_helm(request: pytest.FixtureRequest, offline_cluster: Cluster, tmp_path_factory: Any) -> Helm:
    return Helm(binaries(offline_cluster)[request.param], tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def offline_helm(offline_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(binaries(offline_cluster)["4"], tmp_path_factory.mktemp("helm"))


@pytest.fixture
def render(offline_helm: Helm, tmp_path: Path) -> Render:
    """Objects of the chart with these values, as `helm template` gives them."""

    def objects(**values: Any) -> list[Object]:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        text = offline_helm.run("template", "darkroom", CHART, "--namespace", NAMESPACE, "--values", file)
        return [obj for obj in yaml.safe_load_all(text) if obj]

    return objects


@pytest.fixture(scope="session")
def cluster(offline_cluster: Cluster) -> Iterator[Cluster]:
    """etcd, the API server, its controllers and the scheduler; fake nodes run the pods."""
    yield offline_cluster.up(nodes="kwok:2")
    offline_cluster.down()


@pytest.fixture(scope="session")
def helms(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Helm]:
    """Both, by major version."""
    return {
        version: Helm(binary, tmp_path_factory.mktemp("helm"), cluster.kubeconfig)
        for version, binary in binaries(cluster).items()
    }


@pytest.fixture(scope="session")
def helm(helms: dict[str, Helm]) -> Helm:
    """The newer one."""
    return helms["4"]


@pytest.fixture(scope="session")
def restricted(cluster: Cluster) -> str:
    """A namespace that refuses every pod which is not restricted."""
    name = "restricted"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return name


def is_dashboards(obj: Object) -> bool:
    return bool(obj["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "dashboard")


def only(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of a kind; without a name, that of the operator and not of the sweeps' dashboard."""
    wanted = [
        o for o in objects if o["kind"] == kind and (o["metadata"]["name"] == name if name else not is_dashboards(o))
    ]
    (found,) = wanted
    return found
