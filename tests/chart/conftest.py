"""The chart, rendered and installed by a real Helm on a real API server; no node runs."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import Cluster

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


@pytest.fixture(scope="session")
def offline_helm(offline_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(offline_cluster.bin / "helm", tmp_path_factory.mktemp("helm"))


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
    """etcd and the API server, with the controllers that remove what a release leaves."""
    yield offline_cluster.up(nodes="none")
    offline_cluster.down()


@pytest.fixture(scope="session")
def helm(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(cluster.bin / "helm", tmp_path_factory.mktemp("helm"), cluster.kubeconfig)


@pytest.fixture(scope="session")
def restricted(cluster: Cluster) -> str:
    """A namespace that refuses every pod which is not restricted."""
    name = "restricted"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return name


def only(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of a kind."""
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found
