"""What the user decides about failures, against the real Job controller and scheduler."""

import pytest

from darkroom_api.report import Reason, TerminationMessage
from tests.kube import eventually
from tests.report_server import Reporter

pytestmark = pytest.mark.cluster


def test_the_first_rule_that_matches_decides_and_is_named(flowers):
    rules = [{"exitCodes": [17], "action": "RestartForFree"}, {"exitCodes": [3], "action": "Fail"}]
    job = flowers(restart={"maxRestarts": 0, "backoffSeconds": 0, "rules": rules})
    job.reaches("Running")
    job.end(1, 0, 17)
    eventually(lambda: job.status.get("attempt") == 2, within=30, what="second attempt")
    assert job.status["restarts"] == 0
    assert job.status["attempts"][0]["message"].startswith("restart.rules[0]: exit code 17 -> RestartForFree; ")
    job.reaches("Running")
    job.end(2, 3)
    job.reaches("Failed")
    status, reason, message = job.condition("Failed")
    assert (status, reason) == ("True", "RestartRule")
    assert message.startswith("restart.rules[1]: exit code 3 -> Fail; node 0 in pod flowers-2-0")


def test_a_missed_startup_deadline_fails_the_job_with_the_schedulers_words(flowers, kube, namespace):
    job = flowers(resourcesPerNode={"nvidia.com/gpu": 9}, startupDeadlineSeconds=3)
    job.reaches("Failed")
    status, reason, message = job.condition("Failed")
    assert (status, reason) == ("True", "StartupDeadlineExceeded")
    assert message.startswith("startupDeadlineSeconds (3) passed: Unschedulable: pod flowers-1-")
    assert "Insufficient nvidia.com/gpu" in message
    assert job.status["attempts"][0]["result"] == "Failed"
    eventually(lambda: not kube.list("Job", namespace) and not job.pods(1), what="Job and pods gone")


def test_a_gang_that_is_half_up_is_late_too(flowers, kube, namespace):
    """One pod has no node to go to, the other runs, and is told to leave."""
    job = flowers(startupDeadlineSeconds=6, profile="whole-node", numNodes=5)
    job.reaches("Failed", within=60)
    assert job.condition("Failed")[1] == "StartupDeadlineExceeded"
    eventually(lambda: not job.pods(1), what="pods gone")


@pytest.fixture
def two_nodes(kube):
    """Two nodes for profile `pair` alone. The scheduler likes the first better: the second is half full."""
    first, second, *_ = sorted(node["metadata"]["name"] for node in kube.list("Node"))
    for name in (first, second):
        kube.merge("Node", None, name, {"metadata": {"labels": {"pair": "true"}}})
    yield first, second
    for name in (first, second):
        kube.merge("Node", None, name, {"metadata": {"labels": {"pair": None}}})


def test_the_next_attempt_keeps_away_from_a_node_that_failed_twice(flowers, kube, namespace, two_nodes):
    first, second = two_nodes
    ballast = {"cpu": "40", "memory": "450Gi"}
    container = {"name": "ballast", "image": "x", "resources": {"requests": ballast, "limits": ballast}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ballast"}}
    kube.create(pod | {"spec": {"nodeName": second, "containers": [container]}}, namespace)
    eventually(lambda: kube.get("Pod", namespace, "ballast")["status"]["phase"] == "Running", what="ballast runs")
    job = flowers(profile="pair", numNodes=1)
    for attempt in (1, 2):
        eventually(lambda n=attempt: job.status.get("attempt") == n, within=30, what=f"attempt {attempt}")
        job.reaches("Running")
        assert job.pods(attempt)[0]["spec"]["nodeName"] == first
        job.end(attempt, 70)
    eventually(lambda: job.status.get("attempt") == 3, within=30, what="third attempt")
    job.reaches("Running")
    assert job.status["avoidedNodes"] == [first]
    assert job.pods(3)[0]["spec"]["nodeName"] == second


def test_a_node_that_failed_twice_is_better_than_none(flowers, kube, two_nodes):
    first, second = two_nodes
    kube.merge("Node", None, second, {"metadata": {"labels": {"pair": None}}})
    job = flowers(profile="pair", numNodes=1)
    for attempt in (1, 2, 3):
        eventually(lambda n=attempt: job.status.get("attempt") == n, within=30, what=f"attempt {attempt}")
        job.reaches("Running")
        assert job.pods(attempt)[0]["spec"]["nodeName"] == first
        if attempt < 3:
            job.end(attempt, 70)
    assert job.status["avoidedNodes"] == [first]


def test_a_container_that_hangs_is_ended_and_a_trainer_that_hung_leaves_its_stacks(flowers):
    job = flowers(numNodes=1, stallSeconds=10, restart={"maxRestarts": 1, "backoffSeconds": 0})
    job.reaches("Running")
    pod = Reporter(job.kube, job.pods(1)[0])
    eventually(lambda: pod.try_to_post({"sequence": 1, "step": 7, "steps": 100})[0] == 200, what="a report")
    first = eventually(
        lambda: (first := job.status["attempts"][0])["result"] == "Failed" and first, within=60, what="the end"
    )
    assert first["reason"] == "NoProgress"
    assert first["message"] == "no new step was reported for 10 s (stallSeconds); the last was 7"
    eventually(lambda: job.status.get("attempt") == 2, what="second attempt")
    stacks = "rank 0:\n  fetch.py:54 in fetch"
    said = TerminationMessage(reason=Reason.NO_PROGRESS, exit_code=70, rank=0, error="stuck", log_tail=stacks)
    job.end(2, 70, termination_message=said.encode())
    status = job.reaches("Failed")
    assert (status["failure"]["reason"], status["failure"]["logTail"]) == ("NoProgress", stacks)
    assert status["restarts"] == 1
