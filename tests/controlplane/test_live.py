"""Live reports against a real control plane: fake pods with real tokens, and an operator that may be killed at any moment."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from darkroom_api import names
from darkroom_api.report import Reason
from localcluster import Cluster
from tests.controlplane.conftest import Flowers
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess, free_port
from tests.report_server import Reporter
from tests.trainer.processes import start_node, toy_config

pytestmark = pytest.mark.cluster
PROFILES = """
default: {image: "localhost/trainer:test", resources: {cpu: 100m, memory: 64Mi}, terminationGracePeriodSeconds: 300}
hasty: {image: "localhost/trainer:test", resources: {cpu: 100m, memory: 64Mi}, terminationGracePeriodSeconds: 5}
"""


@pytest.fixture(scope="module")
def listening(cluster: Cluster, kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator that takes reports, for jobs in namespaces of its own."""
    folder, port = tmp_path_factory.mktemp("listening"), free_port()
    (folder / "profiles.yaml").write_text(PROFILES)
    for name in ("listening", "heard"):
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "reports"}}, "listening")
    eventually(lambda: kube.get("ServiceAccount", "heard", "default"), what="default service account")
    settings = {
        "DARKROOM_NAMESPACES": "heard",
        "DARKROOM_REPORTS_ADDRESS": f"127.0.0.1:{port}",
        "DARKROOM_REPORTS_PORT": str(port),
        "DARKROOM_REPORTS_SECRET": "listening/reports",
    }
    with OperatorProcess(cluster.kubeconfig, folder / "profiles.yaml", folder / "log", **settings) as process:
        eventually(lambda: (kube.get("Secret", "listening", "reports") or {}).get("data"), what="a certificate")
        yield process
    kube.delete("Namespace", None, "heard")
    kube.delete("Namespace", None, "listening")


@pytest.fixture
def flowers(kube: Kube, listening: OperatorProcess) -> Iterator[Callable[..., Flowers]]:
    """Makes the test's TrainingJob, and takes it away."""
    yield lambda **spec: Flowers(kube, "heard", **spec)
    kube.delete("TrainingJob", "heard", "flowers")
    eventually(lambda: not kube.list("Job", "heard") and not kube.list("Pod", "heard"), within=60, what="all gone")


def first_pod(job: Flowers, attempt: int = 1) -> Reporter:
    pods = eventually(lambda: job.pods(attempt), what=f"pods of attempt {attempt}: {job.status}")
    return Reporter(job.kube, pods[0])


def reports(pod: Reporter, **fields: Any) -> dict[str, Any]:
    """A report that gets through, and what it is answered."""
    code, answer = eventually(lambda: (said := pod.try_to_post(fields))[0] == 200 and said, what=f"an answer: {fields}")
    assert code == 200
    return answer


def test_a_report_is_the_progress_of_the_job_and_suspension_asks_before_it_deletes(flowers, kube):
    job = flowers()
    job.reaches("Running")
    pod = first_pod(job)
    assert reports(pod, sequence=1, step=30, steps=100, etaSeconds=70)["action"] == "continue"
    progress = eventually(lambda: job.status.get("progress"), what="progress")
    assert (progress["percent"], progress["eta"]) == (30, "70s")
    job.edit(suspend=True)
    eventually(lambda: job.status["attempts"][0].get("yieldTime"), what="asked to leave")
    assert reports(pod, sequence=2, step=31, steps=100)["action"] == "yield"
    assert "deletionTimestamp" not in kube.get("Job", "heard", "flowers-1")["metadata"]
    job.end(1, 75, 75)
    status = job.reaches("Suspended")
    assert (status["attempts"][0]["result"], status["restarts"], status["disruptions"]) == ("Suspended", 0, 0)
    job.edit(suspend=False)
    eventually(lambda: job.status.get("attempt") == 2, what="second attempt")


def test_an_operator_that_is_killed_while_it_waits_forces_what_does_not_leave(flowers, kube, listening):
    job = flowers(profile="hasty")
    job.reaches("Running")
    reports(first_pod(job), sequence=1, step=1)
    job.edit(suspend=True)
    eventually(lambda: job.status["attempts"][0].get("yieldTime"), what="asked to leave")
    listening.kill()
    listening.start()
    status = job.reaches("Suspended")
    assert status["attempts"][0]["yieldTime"]
    assert job.pods(1) == []


def test_the_deadline_asks_first_and_loses_nothing(flowers):
    job = flowers(activeDeadlineSeconds=3600)
    job.reaches("Running")
    pod = first_pod(job)
    reports(pod, sequence=1, step=5, steps=100)
    job.edit(activeDeadlineSeconds=1)
    eventually(lambda: job.status["attempts"][0].get("yieldTime"), what="asked to leave")
    assert reports(pod, sequence=2, step=6, steps=100)["action"] == "yield"
    assert not job.status["finished"]
    job.end(1, 75, 75)
    status = job.reaches("Failed")
    assert job.condition("Failed")[1] == "DeadlineExceeded"
    assert status["attempts"][0]["endTime"]
    assert float(status["time"]["total"]) > 0


def test_with_the_operator_away_nothing_is_lost_but_liveness(flowers, listening):
    job = flowers()
    job.reaches("Running")
    pod = first_pod(job)
    reports(pod, sequence=1, step=10, steps=100)
    listening.kill()
    assert pod.try_to_post({"sequence": 2, "step": 20})[0] == 0
    listening.start()
    reports(pod, sequence=3, step=40, steps=100, epoch=4, epochs=10)
    eventually(lambda: job.status.get("progress", {}).get("step") == 40, what="progress again")
    job.end(1, 0, 0)
    assert job.reaches("Complete")["attempt"] == 1


def test_a_real_trainer_in_the_place_of_a_fake_pod(flowers, tmp_path):
    """Its reports reach the status, and it leaves with a checkpoint when the job is suspended."""
    job = flowers(numNodes=1)
    job.reaches("Running")
    pod = first_pod(job)
    token = tmp_path / "token"
    token.write_text(pod.token())
    there = {name: value for name, value in pod.environ.items() if "REPORT" in name}
    config = toy_config(tmp_path, schedule={"epochs": 1000})
    node = start_node(config, tmp_path, processes=2, **there | {names.ENV_REPORT_TOKEN_FILE: str(token)})
    best = eventually(lambda: job.status.get("best"), within=120, what="an epoch's result")
    assert best["metric"] == "val/top1"
    progress = job.status["progress"]
    assert progress["epochs"] == 1000
    assert progress["step"] > 0
    job.edit(suspend=True)
    node.wait()
    assert (node.code, node.message.reason) == (75, Reason.ASKED_TO_LEAVE), node.output
    assert node.message.checkpoint_step == node.message.step > 0
    job.end(1, 75, termination_message=node.message.encode())
    status = job.reaches("Suspended")
    assert status["progress"]["step"] == node.message.step
    assert status["outputs"]["checkpoint"].startswith("checkpoints/")
