"""Live reports against a real control plane: fake pods with real tokens, and an operator that may be killed at any moment."""

from typing import Any

import pytest

from darkroom_api import names
from darkroom_api.report import Reason
from tests.flowers import Flowers
from tests.kube import eventually
from tests.report_server import Reporter
from tests.trainer.processes import start_node, toy_config

pytestmark = pytest.mark.cluster


def first_pod(job: Flowers, attempt: int = 1) -> Reporter:
    pods = eventually(lambda: job.pods(attempt), what=f"pods of attempt {attempt}: {job.status}")
    return Reporter(job.kube, pods[0])


def reports(pod: Reporter, **fields: Any) -> dict[str, Any]:
    """A report that gets through, and what it is answered."""
    code, answer = eventually(
        lambda: (said := pod.try_to_post(fields))[0] == 200 and said, within=60, what=f"an answer: {fields}"
    )  # an operator that was killed leads again when its lease is over
    assert code == 200
    return answer


def test_a_report_is_the_progress_of_the_job_and_suspension_asks_before_it_deletes(flowers, kube, namespace):
    job = flowers(profile="patient")
    job.reaches("Running")
    pod = first_pod(job)
    assert reports(pod, sequence=1, step=30, steps=100, etaSeconds=70)["action"] == "continue"
    progress = eventually(lambda: job.status.get("progress"), what="progress")
    assert (progress["percent"], progress["eta"]) == (30, "70s")
    job.edit(suspend=True)
    eventually(lambda: job.status["attempts"][0].get("yieldTime"), what="asked to leave")
    assert reports(pod, sequence=2, step=31, steps=100)["action"] == "yield"
    assert "deletionTimestamp" not in kube.get("Job", namespace, "flowers-1")["metadata"]
    job.end(1, 75, 75)
    status = job.reaches("Suspended")
    assert (status["attempts"][0]["result"], status["restarts"], status["disruptions"]) == ("Suspended", 0, 0)
    job.edit(suspend=False)
    eventually(lambda: job.status.get("attempt") == 2, what="second attempt")


def test_an_operator_that_is_killed_while_it_waits_forces_what_does_not_leave(flowers, operator):
    job = flowers()
    job.reaches("Running")
    reports(first_pod(job), sequence=1, step=1)
    job.edit(suspend=True)
    eventually(lambda: job.status["attempts"][0].get("yieldTime"), what="asked to leave")
    operator.kill()
    operator.start()
    status = job.reaches("Suspended", within=60)
    assert status["attempts"][0]["yieldTime"]
    assert job.pods(1) == []


def test_the_deadline_asks_first_and_loses_nothing(flowers):
    job = flowers(profile="patient", activeDeadlineSeconds=3600)
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


def test_with_the_operator_away_nothing_is_lost_but_liveness(flowers, operator):
    job = flowers()
    job.reaches("Running")
    pod = first_pod(job)
    reports(pod, sequence=1, step=10, steps=100)
    operator.kill()
    assert pod.try_to_post({"sequence": 2, "step": 20})[0] == 0
    operator.start()
    reports(pod, sequence=3, step=40, steps=100, epoch=4, epochs=10)
    eventually(lambda: job.status.get("progress", {}).get("step") == 40, what="progress again")
    job.end(1, 0, 0)
    assert job.reaches("Complete")["attempt"] == 1


def test_a_real_trainer_in_the_place_of_a_fake_pod(flowers, tmp_path):
    """Its reports reach the status, and it leaves with a checkpoint when the job is suspended."""
    job = flowers(profile="patient", numNodes=1)
    job.reaches("Running")
    pod = first_pod(job)
    token = tmp_path / "token"
    token.write_text(pod.token())
    there = {name: value for name, value in pod.environ.items() if "REPORT" in name}
    config = toy_config(tmp_path, schedule={"epochs": 1000})
    node = start_node(config, tmp_path, processes=2, **there | {names.ENV_REPORT_TOKEN_FILE: str(token)})
    try:
        best = eventually(lambda: job.status.get("best"), within=180, what="an epoch's result")
        assert best["metric"] == "val/top1"
        progress = job.status["progress"]
        assert progress["epochs"] == 1000
        assert progress["step"] > 0
        job.edit(suspend=True)
    except BaseException:
        node.terminate()
        raise
    finally:
        node.wait()
    assert (node.code, node.message.reason) == (75, Reason.ASKED_TO_LEAVE), node.output
    assert node.message.checkpoint_step == node.message.step > 0
    job.end(1, 75, termination_message=node.message.encode())
    status = job.reaches("Suspended")
    assert status["progress"]["step"] == node.message.step
    assert status["outputs"]["checkpoint"].startswith("checkpoints/")
