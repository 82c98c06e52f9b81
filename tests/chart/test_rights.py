"""The chart's rights are enough: the real operator works with its service account's token, and nothing is forbidden to it."""

import base64
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import Cluster, ClusterError
from tests.chart.conftest import CHART, ROOT, Helm
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess, free_port

pytestmark = pytest.mark.cluster
PROFILES = 'default: {image: "localhost/trainer:test"}'
SAMPLE = ROOT / "deploy/samples/container-plain.yaml"  # four nodes: a Job and a Service


@pytest.mark.parametrize("mode", ["whole-cluster", "one-namespace"])
def test_the_operator_works_with_the_rights_of_the_chart(
    cluster: Cluster, helm: Helm, tmp_path: Path, mode: str
) -> None:
    cluster.kubectl("create", "namespace", mode)
    watched = [mode] if mode == "one-namespace" else []
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"watchNamespaces": watched}))
    # The CRD stayed from the release before, which was in another namespace.
    helm.run("install", "darkroom", CHART, "--namespace", mode, "--values", values, "--take-ownership")
    cluster.kubectl("wait", "--for=condition=Established", "crd/trainingjobs.darkroom.dev", "--timeout=30s")
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(PROFILES)
    kubeconfig = as_service_account(cluster, mode, tmp_path / "kubeconfig")
    eventually(lambda: may_watch(cluster, mode, watched), within=60, what="the rights in force")
    port = free_port()
    operator = OperatorProcess(
        kubeconfig,
        profiles,
        tmp_path / "operator.log",
        DARKROOM_NAMESPACES=",".join(watched),
        DARKROOM_LEASE=f"{mode}/darkroom",
        DARKROOM_REPORTS_ADDRESS=f"127.0.0.1:{port}",
        DARKROOM_REPORTS_PORT=str(port),
        DARKROOM_REPORTS_SECRET=f"{mode}/darkroom-reports",
    )
    with operator:
        checks_tokens(Kube(cluster.kubeconfig), mode, port, kubeconfig)
        live(Kube(cluster.kubeconfig), mode)
        assert operator.fetch("/healthz")[0] == 200
        assert 'leader_election_master_status{name="trainingjobs"} 1.0' in operator.fetch("/metrics")[1]
        assert 'code="403"' not in operator.fetch("/metrics")[1]
    log = operator.log.read_text()
    assert "forbidden" not in log.lower(), log
    helm.run("uninstall", "darkroom", "--namespace", mode)


def may_watch(cluster: Cluster, namespace: str, watched: list[str]) -> bool:
    """Whether the API server's authorizer knows of the roles yet: those of an earlier release of that name went just before."""
    account = f"system:serviceaccount:{namespace}:darkroom"
    where = ["--namespace", watched[0]] if watched else ["--all-namespaces"]
    try:
        return "yes" in cluster.kubectl("auth", "can-i", "watch", "jobs.batch", "--as", account, *where)
    except ClusterError:  # kubectl's exit code says no as well
        return False


def as_service_account(cluster: Cluster, namespace: str, file: Path, account: str = "darkroom") -> Path:
    """A kubeconfig with the token that the operator's pod would have."""
    config: dict[str, Any] = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify"))
    config["users"][0]["user"] = {
        "token": cluster.kubectl("create", "token", account, "--namespace", namespace).strip()
    }
    file.write_text(yaml.safe_dump(config))
    return file


def checks_tokens(kube: Kube, namespace: str, port: int, kubeconfig: Path) -> None:
    """It fills its Secret, and reads the keys that the cluster publishes: the token is found to be for somebody else."""

    def filled() -> Any:
        return (kube.get("Secret", namespace, "darkroom-reports") or {}).get("data")

    authority = base64.b64decode(eventually(filled, what="a certificate")["ca.crt"]).decode()
    token = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]["token"]

    def answer() -> tuple[int, str]:
        tls = ssl.create_default_context(cadata=authority)
        url = f"https://127.0.0.1:{port}/v1/training-jobs/x/attempts/1/reports"
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(url, b"{}", headers, method="POST")
        try:
            with urllib.request.urlopen(request, context=tls, timeout=20) as response:  # noqa: S310
                return response.status, ""
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    code, text = eventually(lambda: (found := answer())[0] and found, what="the report server")
    assert (code, "Audience" in text) == (401, True), text


def live(kube: Kube, namespace: str) -> None:
    """A job is created, begins, is suspended and resumed: every kind of write but the last delete."""
    sample = yaml.safe_load(SAMPLE.read_text())
    name = sample["metadata"]["name"]
    kube.create(sample, namespace)
    eventually(lambda: kube.get("Job", namespace, f"{name}-1"), within=60, what="the first attempt's Job")
    eventually(lambda: kube.get("Service", namespace, f"darkroom-{name}"), what="the Service")
    eventually(lambda: state(kube, namespace, name) == "Pending", what="a status")
    kube.merge("TrainingJob", namespace, name, {"spec": {"suspend": True}})
    eventually(lambda: state(kube, namespace, name) == "Suspended", what="suspended")
    eventually(lambda: kube.list("Event", namespace), what="events")
    kube.merge("TrainingJob", namespace, name, {"spec": {"suspend": False}})
    eventually(lambda: state(kube, namespace, name) == "Pending", what="resumed")
    kube.delete("TrainingJob", namespace, name)
    eventually(lambda: not kube.list("Job", namespace), within=90, what="its Jobs gone")


def state(kube: Kube, namespace: str, name: str) -> str | None:
    job = kube.get("TrainingJob", namespace, name) or {}
    return job.get("status", {}).get("state")
