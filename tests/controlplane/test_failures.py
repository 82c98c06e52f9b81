"""What the user decides about failures, against the real Job controller and scheduler."""

import pytest

from tests.kube import eventually

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
    assert kube.list("Job", namespace) == []
    assert job.pods(1) == []


def test_a_gang_that_is_half_up_is_late_too(flowers, kube, namespace):
    """One pod has no node to go to, the other runs, and is told to leave."""
    job = flowers(startupDeadlineSeconds=6, profile="whole-node", numNodes=5)
    job.reaches("Failed", within=60)
    assert job.condition("Failed")[1] == "StartupDeadlineExceeded"
    assert job.pods(1) == []
