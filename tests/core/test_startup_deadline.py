"""spec.startupDeadlineSeconds: an attempt whose pods do not all run in time ends, and says what held them."""

import pytest

from tests.core.test_plan import running
from tests.core.world import World

OBSTACLE = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."


def waiting(*, pods: bool = True, **spec) -> World:
    """A job of two nodes with a deadline of a minute; node 0 runs, node 1 cannot be scheduled."""
    world = World(startupDeadlineSeconds=60, **spec)
    world.settle()
    if pods:
        world.run("flowers-1", 0)
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": OBSTACLE}
        world.pods["flowers-1-1"]["status"]["conditions"] = [condition]
    else:
        world.pods.clear()
    world.settle()
    return world


def test_it_ends_with_what_held_it():
    world = waiting()
    assert world.look().requeue_after == pytest.approx(60)
    world.wait(61)
    world.settle()
    assert world.condition("Ready") == ("False", "StartupDeadlineExceeded")
    assert not world.status["finished"]  # node 0 has not left yet
    assert "deletionTimestamp" in world.jobs["flowers-1"]["metadata"]
    world.leave("flowers-1")
    world.settle()
    assert world.condition("Failed") == ("True", "StartupDeadlineExceeded")
    words = f"startupDeadlineSeconds (60) passed: Unschedulable: pod flowers-1-1: {OBSTACLE}"
    assert world.ready_message == words == world.status["attempts"][0]["message"]
    assert world.status["attempts"][0]["result"] == "Failed"
    assert float(world.status["time"]["total"]) == pytest.approx(61)
    assert world.created.count("Job/flowers-2") == 0
    assert [event.reason for event in world.events][-2:] == ["AttemptFailed", "StartupDeadlineExceeded"]


def test_the_verdict_is_stored_before_the_job_goes():
    """Killed between the two, the operator would find a deleted Job and take it for somebody's kubectl delete."""
    world = waiting()
    world.wait(61)
    assert world.look().delete == ()
    assert world.status["attempts"][0]["reason"] == "StartupDeadlineExceeded"
    assert [target.name for target in world.look().delete] == ["flowers-1"]


def test_pods_that_nobody_makes_count_as_late():
    world = waiting(pods=False)
    world.wait(10)
    world.settle()
    assert world.look().requeue_after == pytest.approx(50)
    world.wait(51)
    world.settle()
    assert world.condition("Failed") == ("True", "StartupDeadlineExceeded")
    assert "PodsNotCreated: no pod was made for Job flowers-1" in world.ready_message


def test_once_every_pod_has_run_it_is_met():
    world = running(startupDeadlineSeconds=60)
    assert world.look().requeue_after is None
    world.wait(3600)
    world.settle()
    assert world.status["state"] == "Running"


def test_a_crash_before_the_deadline_is_a_crash():
    world = waiting()
    world.end("flowers-1", 0, 70)
    world.wait(61)
    world.settle()
    world.leave("flowers-1")
    world.settle()
    assert world.status["attempts"][0]["reason"] == "SoftwareError"


def test_each_attempt_has_its_time():
    world = running(startupDeadlineSeconds=60, restart={"backoffSeconds": 0})
    world.wait(3600)
    world.end("flowers-1", 0, 70)
    world.leave("flowers-1")
    world.settle()
    assert world.look().requeue_after == pytest.approx(60)
    world.wait(61)
    world.settle()
    assert world.status["attempts"][1]["reason"] == "StartupDeadlineExceeded"
    assert "deletionTimestamp" in world.jobs["flowers-2"]["metadata"]


def test_time_suspended_does_not_count():
    world = waiting()
    world.wait(59)
    world.edit(suspend=True)
    world.settle()
    world.leave("flowers-1")
    world.settle()
    world.wait(3600)
    world.edit(suspend=False)
    world.settle()
    assert world.look().requeue_after == pytest.approx(60)
    assert world.status["attempts"][0]["result"] == "Suspended"


def test_time_in_a_queue_does_not_count():
    """A queueing system suspends the Job itself; the Job controller starts its clock when it lets go."""
    world = waiting(pods=False)
    world.jobs["flowers-1"]["spec"]["suspend"] = True
    world.wait(3600)
    world.settle()
    assert not world.status["finished"]
    world.jobs["flowers-1"]["spec"]["suspend"] = False
    world.jobs["flowers-1"]["status"] = {"startTime": "2026-01-01T01:00:00Z"}
    world.settle()
    assert world.look().requeue_after == pytest.approx(10)  # by then its pods are due
    world.wait(10)
    assert world.look().requeue_after == pytest.approx(50)


def test_it_may_be_moved():
    world = waiting()
    world.wait(50)
    world.edit(startupDeadlineSeconds=3600)
    world.wait(50)
    world.settle()
    assert world.condition("Ready") == ("False", "Unschedulable")


def test_a_rule_may_ask_for_another_try():
    rule = {"reasons": ["StartupDeadlineExceeded"], "action": "Restart"}
    world = waiting(restart={"maxRestarts": 1, "backoffSeconds": 0, "rules": [rule]})
    world.wait(61)
    world.settle()
    world.leave("flowers-1")
    world.settle()
    assert "Job/flowers-2" in world.created
    assert world.status["restarts"] == 1
    world.wait(61)
    world.settle()
    world.leave("flowers-2")
    world.settle()
    assert world.condition("Failed") == ("True", "RestartsExhausted")
