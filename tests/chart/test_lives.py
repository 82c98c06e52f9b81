"""A release with jobs in it, by Helm 3 and Helm 4: upgrade from the version before, rollback, uninstall, and a new install.

Fake nodes run the pods. The operator's own pod is one of them, so the operator of that version runs beside it as a process, with
the token that its pod would have.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom_api.crd import training_job_crd
from localcluster import Cluster
from tests.chart.conftest import CHART, Helm
from tests.chart.health import judge
from tests.chart.test_rights import as_service_account
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess, free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
PREVIOUS = Path(__file__).parent / "previous"
"""What scripts/previous.py kept."""
CRD, SWEEPS = "trainingjobs.darkroom.dev", "tuningsweeps.darkroom.dev"
Pictures = dict[str, Any]


class Release:
    """The chart in a namespace of its own, watching that namespace, with an operator that follows its version."""

    def __init__(self, cluster: Cluster, helm: Helm, namespace: str, folder: Path) -> None:
        self.cluster, self.helm, self.namespace, self.folder = cluster, helm, namespace, folder
        self.kube = Kube(cluster.kubeconfig)
        self.values = folder / "values.yaml"
        profiles = {"default": {"image": "localhost/trainer:1", "resources": {"cpu": "100m", "memory": "64Mi"}}}
        values = {"watchNamespaces": [namespace], "profiles": profiles, "fullnameOverride": namespace}
        self.values.write_text(yaml.safe_dump(values | {"resources": {"requests": {"cpu": "1m"}}}))
        self.operator: OperatorProcess | None = None
        self.started = 0

    def helms(self, command: str, *arguments: str | Path) -> None:
        """A command that waits until the release is healthy."""
        self.helm.run(command, "darkroom", *arguments, "--namespace", self.namespace, "--wait", "--timeout", "2m")

    def upgrade(self, chart: Path) -> None:
        """Or install."""
        tag = "image.tag=this" if chart == CHART else "image.tag=previous"  # so that the operator's pod is replaced
        self.helms("upgrade", "--install", chart, "--values", self.values, "--set", tag)
        self.cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")
        self.hand_over(chart)

    def hand_over(self, chart: Path) -> None:
        """As the Deployment's rolling update does: the new one starts beside the old one, which is then asked to leave."""
        old, self.operator = self.operator, self._operator(chart)
        if old is not None:
            assert old.stop() == 0, old.log.read_text()[-3000:]
        led = 'leader_election_master_status{name="trainingjobs"} 1.0'
        eventually(lambda: self.operator and led in self.operator.fetch("/metrics")[1], within=60, what="it leads")

    def _operator(self, chart: Path) -> OperatorProcess:
        self.started += 1
        folder = self.folder / str(self.started)
        folder.mkdir()
        account = as_service_account(self.cluster, self.namespace, folder / "kubeconfig", account=self.namespace)
        config = self.kube.get("ConfigMap", self.namespace, f"{self.namespace}-profiles")
        assert config
        (folder / "profiles.yaml").write_text(config["data"]["profiles.yaml"])
        port = free_port()
        environment = {
            "DARKROOM_NAMESPACES": self.namespace,
            "DARKROOM_LEASE": f"{self.namespace}/{self.namespace}",
            "DARKROOM_REPORTS_ADDRESS": f"127.0.0.1:{port}",
            "DARKROOM_REPORTS_PORT": str(port),
            "DARKROOM_REPORTS_SECRET": f"{self.namespace}/{self.namespace}-reports",
        }
        if chart != CHART:
            environment["PYTHONPATH"] = str(PREVIOUS / "operator.zip")
        process = OperatorProcess(account, folder / "profiles.yaml", folder / "operator.log", **environment)
        return process.start()

    def stop(self) -> None:
        if self.operator:
            assert self.operator.stop() == 0
            self.operator = None

    # --- what is in it ---

    def train(self, name: str, **spec: Any) -> None:
        container = {"image": "localhost/mine:1", "command": ["torchrun", "train.py"]}
        head = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}}
        self.kube.create(head | {"spec": {"container": container} | spec}, self.namespace)

    def state(self, name: str) -> str | None:
        return (self.kube.get("TrainingJob", self.namespace, name) or {}).get("status", {}).get("state")

    def reaches(self, name: str, state: str) -> None:
        eventually(lambda: self.state(name) == state, within=60, what=f"{name} is {state}, not {self.state(name)}")

    def end(self, job: str) -> None:
        notes = {"metadata": {"annotations": {"localcluster.darkroom.dev/exit-code": "0"}}}
        for pod in self.kube.list("Pod", self.namespace, f"batch.kubernetes.io/job-name={job}"):
            self.kube.merge("Pod", self.namespace, pod["metadata"]["name"], notes)

    def pictures(self) -> Pictures:
        """What an upgrade must not touch: identities of everything of the jobs, their specs, and what became of them."""
        jobs = self.kube.list("TrainingJob", self.namespace)
        children = [
            (kind, child["metadata"]["name"], child["metadata"]["uid"], child["metadata"].get("generation"))
            for kind in ("Job", "Service", "Pod")
            for child in self.kube.list(kind, self.namespace, "darkroom.dev/training-job")
        ]
        return {
            "children": sorted(children, key=str),
            "jobs": {
                job["metadata"]["name"]: (
                    job["metadata"]["uid"],
                    job["metadata"]["generation"],
                    job["metadata"].get("annotations"),
                    job["metadata"].get("labels"),
                    job["metadata"].get("finalizers"),
                    job["spec"],
                    *(
                        job["status"][key]
                        for key in ("state", "attempt", "restarts", "disruptions")
                        if key in job["status"]
                    ),
                )
                for job in jobs
            },
        }

    def certificates(self) -> dict[str, str]:
        """What the operator put into the Secret that the chart ships empty; Helm claims none of it."""
        secret = self.kube.get("Secret", self.namespace, f"{self.namespace}-reports") or {}
        owners = [
            entry["manager"]
            for entry in secret["metadata"].get("managedFields", [])
            if "f:data" in entry["fieldsV1"] and "helm" in entry["manager"].lower()
        ]
        assert owners == []
        return secret.get("data", {})

    def crd_has_the_schema_of_this_version(self) -> bool:
        """The API server stores it with defaults of its own around."""
        stored = (self.kube.get("CustomResourceDefinition", None, CRD) or {})["spec"]["versions"][0]
        return bool(stored["schema"] == training_job_crd()["spec"]["versions"][0]["schema"])


@pytest.fixture
def release(
    cluster: Cluster, helms: dict[str, Helm], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Release]:
    """A namespace, and the Helm that the test begins with."""
    namespace = f"lives-{request.param.replace(' ', '-')}"
    cluster.kubectl("delete", "crd", CRD, SWEEPS, "--ignore-not-found")  # of a release in another namespace
    cluster.kubectl("create", "namespace", namespace)
    release = Release(cluster, helms[request.param[0]], namespace, tmp_path)
    yield release
    if release.operator:
        release.operator.kill()
    release.helm("uninstall", "darkroom", "--namespace", namespace)
    cluster.kubectl("delete", "crd", CRD, SWEEPS, "--ignore-not-found")
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.parametrize("release", ["3", "4", "3 to 4"], indirect=True)
def test_a_release_with_jobs_in_it(release: Release, helms: dict[str, Helm], request: pytest.FixtureRequest) -> None:
    release.upgrade(PREVIOUS / "chart.tgz")
    release.train("runs", numNodes=2)
    release.train("waits", suspend=True)
    release.train("ended")
    for name, state in (("runs", "Running"), ("waits", "Suspended"), ("ended", "Running")):
        release.reaches(name, state)
    release.end("ended-1")
    release.reaches("ended", "Complete")
    jobs, certificates = release.pictures(), release.certificates()
    assert len(jobs["children"]) == len(["runs-1", "its Service", "its pods", "its pods", "ended-1", "its pod"])
    assert certificates

    release.helm = helms[request.node.callspec.params["release"][-1]]
    release.upgrade(CHART)
    assert (release.pictures(), release.certificates()) == (jobs, certificates)
    assert release.crd_has_the_schema_of_this_version()

    release.helms("rollback", "1")
    release.hand_over(PREVIOUS / "chart.tgz")
    assert (release.pictures(), release.certificates()) == (jobs, certificates)

    release.upgrade(CHART)
    assert (release.pictures(), release.certificates()) == (jobs, certificates)
    release.stop()
    release.helm.run("uninstall", "darkroom", "--namespace", release.namespace, "--wait")
    assert release.kube.get("Deployment", release.namespace, release.namespace) is None
    assert release.pictures() == jobs

    release.train("late")  # nobody sees it yet
    (late,) = judge([release.kube.get("TrainingJob", release.namespace, "late") or {}])
    assert late.verdict.kstatus == "InProgress"
    release.upgrade(CHART)
    release.reaches("late", "Running")
    release.end("runs-1")
    release.reaches("runs", "Complete")
    status = (release.kube.get("TrainingJob", release.namespace, "runs") or {})["status"]
    assert (status["attempt"], status["restarts"], status["disruptions"]) == (1, 0, 0), json.dumps(status)
