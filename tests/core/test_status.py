"""What the status says while an attempt is on its way: between two truths there is no third word."""

import pytest

from darkroom_operator.core.profile import Profile
from tests.core.test_plan import running
from tests.core.world import World


def test_suspend_that_is_withdrawn_while_the_pods_leave_is_no_disruption():
    world = running()
    world.edit(suspend=True)
    world.settle()
    world.edit(suspend=False)
    world.settle()
    assert world.status["state"] == "Stopping"
    world.leave("flowers-1")
    world.settle()
    assert (world.status["attempts"][0]["result"], world.status["disruptions"]) == ("Suspended", 0)
    assert "Job/flowers-2" in world.created


def test_no_word_of_starting_between_the_first_failed_pod_and_the_job_controllers_verdict():
    world = running()
    world.pods["flowers-1-1"]["status"]["phase"] = "Failed"
    world.settle()
    assert (world.status["state"], world.condition("Ready")) == ("Stopping", ("False", "Stopping"))
    patches = len(world.patches)
    world.end("flowers-1", 1, 70)
    world.settle()
    assert len(world.patches) == patches


@pytest.mark.parametrize(
    ("taint", "words", "nodes"),
    [
        pytest.param(
            "deleting due to NoExecute taint", ["NoExecute", "worker", "out-of-service"], "1/2", id="lost node"
        ),
        pytest.param(None, ["being deleted"], "2/2", id="kubectl delete pod"),
    ],
)
def test_a_pod_on_its_way_out_is_not_running(taint, words, nodes):
    world = running()
    pod = world.pods["flowers-1-0"]
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if taint:
        pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "message": taint}]
    world.settle()
    assert (world.status["state"], world.status["nodes"]) == ("Stopping", nodes)
    assert world.condition("Ready") == ("False", "Stopping")
    assert all(word in world.ready_message for word in ["flowers-1-0", *words])


def test_a_running_attempt_keeps_what_its_profile_was():
    world = running()
    world.profiles = {"default": Profile(image="trainer:2")}
    world.settle()
    assert world.status["resolved"]["image"] == "trainer:1"
    world.disrupt("flowers-1", 0)
    world.leave("flowers-1")
    world.settle()
    assert world.status["resolved"]["image"] == "trainer:2"


def test_an_attempt_without_a_pod_that_ran_follows_its_profile():
    world = World(restart={"maxRestarts": 0})
    world.settle()
    world.profiles = {"default": Profile(image="trainer:2")}
    world.settle()
    world.leave("flowers-1", exit_code=0)
    world.settle()
    first, second = world.status["attempts"]
    assert (first["result"], first["reason"], second["result"]) == ("Disrupted", "ProfileChanged", "Running")
    assert world.jobs["flowers-2"]["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:2"
    assert world.status["restarts"] == 0


def test_a_part_of_the_pods_that_nobody_makes_is_noticed():
    world = World()
    world.settle()
    del world.pods["flowers-1-1"]
    world.run("flowers-1")
    world.settle()
    assert world.look().requeue_after == pytest.approx(10)
    world.wait(10)
    world.settle()
    assert world.condition("Ready") == ("False", "PodsNotCreated")
    assert "1 of 2 pods were made for Job flowers-1" in world.ready_message
