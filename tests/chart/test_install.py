"""The chart on a real API server: pod security, rights as the authorizer sees them, install, upgrade, uninstall."""

import json

import pytest
import yaml

from localcluster import Cluster, ClusterError
from tests.chart.conftest import CHART, ROOT, Helm, Render, only
from tests.chart.values import EVERYTHING
from tests.kube import eventually

pytestmark = pytest.mark.cluster
SAMPLES = sorted((ROOT / "deploy/samples").glob("*.yaml"))
CRD = "trainingjobs.darkroom.dev"
CRDS = (CRD, "tuningsweeps.darkroom.dev")


@pytest.fixture(scope="module")
def crd(cluster: Cluster) -> str:
    """The CRD as deploy/crds/ has it, before and beside any release."""
    cluster.kubectl("apply", "--server-side", "--filename", str(ROOT / "deploy/crds"))
    cluster.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRDS), "--timeout=30s")
    return CRD


@pytest.mark.parametrize("values", [pytest.param({}, id="defaults"), pytest.param(EVERYTHING, id="every option")])
def test_the_operators_pod_is_restricted(cluster: Cluster, restricted: str, render: Render, values: dict) -> None:
    template = only(render(**values), "Deployment")["spec"]["template"]
    template["spec"] |= {"priorityClassName": "", "serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**pod["metadata"], "name": "operator", "namespace": restricted}
    eventually(
        lambda: "default" in cluster.kubectl("-n", restricted, "get", "sa", "-o", "name"), what="service account"
    )
    cluster.kubectl("create", "--dry-run=server", "--filename", "-", input=yaml.safe_dump(pod))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_valid(cluster: Cluster, crd: str, sample: object) -> None:
    cluster.kubectl("create", "--dry-run=server", "--validate=strict", "--filename", str(sample))


def test_another_apply_of_a_sample_changes_nothing(cluster: Cluster, crd: str) -> None:
    """From the third on: the second stores the status that an object has by default, unless the operator was faster."""
    sample = str(ROOT / "deploy/samples/digits.yaml")
    for _ in range(2):
        cluster.kubectl("apply", "--server-side", "--filename", sample)
    before = cluster.kubectl("get", "tj", "digits", "-o", "jsonpath={.metadata.resourceVersion}")
    cluster.kubectl("apply", "--server-side", "--filename", sample)
    assert cluster.kubectl("get", "tj", "digits", "-o", "jsonpath={.metadata.resourceVersion}") == before
    cluster.kubectl("delete", "tj", "digits")


def test_explain_tells_every_field(cluster: Cluster, crd: str) -> None:
    text = cluster.kubectl("explain", "trainingjob.spec")
    assert "exactly one of vision and container" in text.lower().replace("\n", " ").replace("  ", " ")


def test_install_yaml_is_accepted(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.kubectl("apply", "--server-side", "--filename", str(ROOT / "deploy/install.yaml"))
    assert "default:" in cluster.kubectl("-n", "darkroom-system", "get", "cm", "darkroom-profiles", "-o", "yaml")
    everything_but_the_crd = "app.kubernetes.io/component!=crd"
    cluster.kubectl("delete", "--filename", str(ROOT / "deploy/install.yaml"), "--selector", everything_but_the_crd)
    assert CRD in cluster.kubectl("get", "crd", "-o", "name")
    cluster.kubectl("delete", "crd", *CRDS)


def test_helm_takes_over_what_kubectl_installed(cluster: Cluster, helm: Helm) -> None:
    cluster.kubectl("apply", "--server-side", "--filename", str(ROOT / "deploy/install.yaml"))
    take_over = ("--namespace", "darkroom-system", "--take-ownership", "--force-conflicts")
    helm.run("upgrade", "--install", "darkroom", CHART, *take_over)
    helm.run("uninstall", "darkroom", "--namespace", "darkroom-system")
    assert "darkroom" not in cluster.kubectl("--namespace", "darkroom-system", "get", "deployments", "-o", "name")
    cluster.kubectl("delete", "crd", *CRDS)
    cluster.kubectl("delete", "namespace", "darkroom-system", "--wait=false")


def test_install_upgrade_uninstall(cluster: Cluster, helm: Helm) -> None:
    release = ("darkroom", CHART, "--namespace", "release", "--create-namespace")
    helm.run("install", *release)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")
    cluster.kubectl("apply", "--server-side", "--filename", str(ROOT / "deploy/samples/digits.yaml"))
    check_rights(cluster, "system:serviceaccount:release:darkroom")

    patch = ("patch", "secret", "darkroom-reports", "--type", "merge", "--field-manager", "darkroom-operator")
    cluster.kubectl("-n", "release", *patch, "--patch", '{"data": {"tls.crt": "eA=="}}')
    helm.run("upgrade", *release, "--set", "log.level=DEBUG", "--set", "profiles.default.maxNodes=3")
    secret = ("get", "secret", "darkroom-reports", "-o", "jsonpath={.data}")
    assert cluster.kubectl("-n", "release", *secret) == '{"tls.crt":"eA=="}'  # the operator's, whatever Helm does
    deployment = json.loads(cluster.kubectl("-n", "release", "get", "deployment", "darkroom", "-o", "json"))
    variables = {e["name"]: e.get("value", "") for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["DARKROOM_LOG_LEVEL"] == "DEBUG"
    assert "maxNodes: 3" in cluster.kubectl("-n", "release", "get", "cm", "darkroom-profiles", "-o", "yaml")

    helm.run("uninstall", "darkroom", "--namespace", "release")
    assert "digits" in cluster.kubectl("get", "trainingjobs", "-o", "name")  # the CRD and the user's jobs outlive it
    assert cluster.kubectl("-n", "release", "get", "deployment,service", "-o", "name") == ""

    helm.run("install", *release)  # over the CRD that stayed
    helm.run("uninstall", "darkroom", "--namespace", "release")
    cluster.kubectl("delete", "tj", "digits")


def check_rights(cluster: Cluster, account: str) -> None:
    """What the authorizer says, aggregated roles and defaults for everybody included."""

    def may(verb: str, resource: str) -> bool:
        resource, _, part = resource.partition("/")
        question = ("auth", "can-i", verb, resource, f"--subresource={part}", "--as", account, "--namespace", "default")
        try:
            return cluster.kubectl(*question).strip() == "yes"
        except ClusterError:
            return False  # "no" comes with exit code 1

    own = ("auth", "can-i", "patch", "secret/darkroom-reports", "--as", account, "--namespace", "release")
    assert cluster.kubectl(*own).strip() == "yes"
    assert may("create", "jobs.batch") and may("patch", "trainingjobs.darkroom.dev/status")
    assert not any(may(verb, "secrets") for verb in ("get", "list", "watch", "create"))
    assert not any(may(verb, "pods") for verb in ("create", "delete", "patch"))
    assert not may("update", "trainingjobs.darkroom.dev") and not may("create", "tuningsweeps.darkroom.dev")
    assert not may("list", "customresourcedefinitions.apiextensions.k8s.io") and not may("list", "namespaces")
