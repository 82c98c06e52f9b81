"""Every manifest against the schemas that the API server publishes, by kubeconform: an unknown field is an error."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import Cluster
from tests.chart.conftest import CHART, NAMESPACE, ROOT, Helm
from tests.chart.test_render import MODES
from tests.kube import Kube, eventually
from tests.tools import tool

pytestmark = pytest.mark.cluster
GVK = "x-kubernetes-group-version-kind"
OTHERS = Path(__file__).parent / "crds"
"""CRDs of Flux, Argo CD and the Prometheus operator; the first line of each says where it is from."""
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "deploy").rglob("*.yaml"))
NOT_OBJECTS = {"deploy/gitops/argocd/argocd-cm.yaml", "deploy/kustomization.yaml"}
"""A patch, and a file that kubectl reads by itself."""


@pytest.fixture(scope="module")
def schemas(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file for each kind, as kubeconform looks them up, with our CRDs and those of others served."""
    for folder in (OTHERS, ROOT / "deploy/crds"):
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(folder))
    kube = Kube(cluster.kubeconfig)
    wanted = {crd["spec"]["names"]["singular"] for crd in kube.list("CustomResourceDefinition")}
    folder = tmp_path_factory.mktemp("schemas")

    def written() -> bool:
        """The API server publishes the schema of a new CRD a moment after it serves it."""
        for path in kube.request("GET", "/openapi/v3")["paths"]:
            if path.startswith(("api/", "apis/")):
                write(folder, kube.request("GET", f"/openapi/v3/{path}").get("components", {}).get("schemas", {}))
        return wanted <= {file.name.split(".")[0] for file in folder.rglob("*.json")}

    eventually(written, within=60, what="schemas of every CRD")
    yield folder
    cluster.kubectl("delete", "--filename", str(OTHERS), "--filename", str(ROOT / "deploy/crds"))


def write(folder: Path, schemas: dict[str, Any]) -> None:
    """Each kind with all that it may refer to."""
    everything = {name: strict(schema) for name, schema in schemas.items()}
    for name, schema in schemas.items():
        for kind in schema.get(GVK, []):
            file = folder / kind["group"] / f"{kind['kind'].lower()}.{kind['version']}.json"
            file.parent.mkdir(exist_ok=True)
            whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": everything}}
            file.write_text(json.dumps(whole))


def strict(schema: Any) -> Any:
    """No fields but those that are named."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        schema["additionalProperties"] = False
    return schema


def conform(schemas: Path, text: str) -> list[str]:
    """What kubeconform has against these documents; it names only those that are wrong."""
    name = "{{.ResourceKind}}.{{.ResourceAPIVersion}}.json"  # the core group has no name
    places = [f"-schema-location={schemas}/{place}" for place in (f"{{{{.Group}}}}/{name}", name)]
    command = [tool("kubeconform"), "-strict", "-output=json", "-summary", *places]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert sum(said["summary"].values()) == sum(bool(document) for document in yaml.safe_load_all(text))
    assert said["summary"]["skipped"] == 0
    return [f"{one['kind']} {one['name']}: {one['msg']}" for one in said["resources"]]


@pytest.mark.parametrize("values", MODES)
def test_the_chart_renders_what_the_api_server_knows(
    each_offline_helm: Helm, schemas: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    text = each_offline_helm.run("template", "darkroom", CHART, "--namespace", NAMESPACE, "--values", file)
    assert conform(schemas, text) == []


@pytest.mark.parametrize("path", [path for path in FILES if str(path) not in NOT_OBJECTS], ids=str)
def test_a_file_has_what_the_api_server_knows(schemas: Path, path: Path) -> None:
    assert conform(schemas, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        pytest.param(
            "deploy/install.yaml", ("periodSeconds: 5", "period: 5"), "period", id="a field that is not there"
        ),
        pytest.param("deploy/samples/digits.yaml", ("epochs:", "epoch:"), "epoch", id="one of ours"),
        pytest.param("deploy/gitops/flux/darkroom.yaml", ("interval: 10m", "interval: often"), "interval", id="Flux"),
    ],
)
def test_it_would_notice(schemas: Path, path: str, change: tuple[str, str], words: str) -> None:
    text = (ROOT / path).read_text().replace(*change)
    assert any(words in complaint for complaint in conform(schemas, text))
