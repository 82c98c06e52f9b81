"""elastic: the job asks for maxNodes pods and trains with minNodes; pods that come and go cost no attempt."""

import pytest

from darkroom_api.report import Action, Reason
from darkroom_operator.core.training_job import live
from tests.core.world import VISION, World, message

ELASTIC = {"numNodes": None, "elastic": {"minNodes": 2, "maxNodes": 3}, "checkpoint": {"claim": "runs"}}


def job(*indices: int, **spec) -> World:
    """An elastic job of two to three nodes, of which these run."""
    world = World(**(ELASTIC | {"restart": {"backoffSeconds": 0}} | spec))
    world.settle()
    world.run("flowers-1", *indices)
    world.settle()
    return world


def test_it_trains_once_the_least_number_of_nodes_is_there():
    world = job(0)
    assert (world.status["state"], world.status["nodes"]) == ("Pending", "1/3")
    world.run("flowers-1", 2)
    world.settle()
    assert (world.condition("Ready"), world.status["nodes"]) == (("True", "Running"), "2/3")
    assert world.ready_message == "attempt 1: 2 of 3 nodes run, 2 are enough"
    assert world.status["attempts"][0]["runningTime"]
    world.run("flowers-1", 1)
    world.settle()
    assert world.ready_message == "attempt 1: every node runs"
    assert (world.events[-1].reason, world.events[-1].note) == ("Resized", "attempt 1: every node runs")


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda world: world.disrupt("flowers-1", 1), id="evicted"),
        pytest.param(lambda world: world.end("flowers-1", 1, 75), id="asked to leave"),
    ],
)
def test_a_lost_node_costs_no_attempt_and_comes_back(lose):
    world = job()
    lose(world)
    world.settle()
    assert (world.status["state"], world.status["nodes"], world.status["attempt"]) == ("Running", "2/3", 1)
    assert world.events[-1].note == "attempt 1: 2 of 3 nodes run, 2 are enough"
    world.wait(300)
    world.run("flowers-1", 1)
    world.settle()
    assert (world.status["nodes"], world.status["restarts"], world.status["disruptions"]) == ("3/3", 0, 0)
    world.end("flowers-1", 0, 0, message(Reason.COMPLETED))
    world.leave("flowers-1", 0)
    world.settle()
    assert world.condition("Complete") == ("True", "Completed")
    assert world.created.count("Job/flowers-2") == 0


def test_fewer_than_the_least_number_wait_in_the_same_attempt():
    world = job()
    world.disrupt("flowers-1", 1)
    world.disrupt("flowers-1", 2)
    world.settle()
    assert (world.status["state"], world.status["nodes"], world.status["attempt"]) == ("Pending", "1/3", 1)
    world.run("flowers-1", 2)
    world.settle()
    assert world.status["state"] == "Running"


def test_a_pod_that_never_found_a_node_is_not_missed_at_the_end():
    world = job(0, 1)
    world.end("flowers-1", 1, 0)
    world.end("flowers-1", 0, 0, message(Reason.COMPLETED))
    world.settle()
    assert world.status["state"] == "Complete"


def test_a_crash_ends_the_attempt_whoever_was_lost_before():
    """And neither an eviction nor a drain just then makes it free."""
    world = job()
    world.disrupt("flowers-1", 1)
    world.settle()
    world.end("flowers-1", 2, 70, message(Reason.SOFTWARE_ERROR, 70, rank=2, error="KeyError: x"))
    world.leave("flowers-1")
    world.settle()
    attempt = world.status["attempts"][0]
    assert (attempt["result"], attempt["reason"], world.status["restarts"]) == ("Failed", "SoftwareError", 1)
    assert "Job/flowers-2" in world.created


def test_suspension_ends_the_job_at_once_so_that_no_pod_is_made_again():
    world = job()
    world.report(step=1)
    world.settle()
    world.edit(suspend=True)
    world.settle()
    assert "deletionTimestamp" in world.jobs["flowers-1"]["metadata"]
    assert live.reply(world.body, 1, accepted=True).action == Action.CONTINUE  # SIGTERM asks
    world.leave("flowers-1")
    world.settle()
    assert world.status["state"] == "Suspended"


def test_nodes_are_paid_for_while_they_are_held():
    """A node costs 3.60 an hour: 0.001 a second."""
    world = job()
    world.wait(100)
    world.disrupt("flowers-1", 1)
    world.settle()
    world.wait(200)
    world.run("flowers-1", 1)
    world.settle()
    world.wait(100)
    world.end("flowers-1", 0, 0, message(Reason.COMPLETED))
    world.leave("flowers-1", 0)
    world.settle()
    assert float(world.status["cost"].split()[0]) == pytest.approx((100 * 3 + 200 * 2 + 100 * 3) * 0.001)


def test_a_budget_lasts_longer_on_fewer_nodes():
    world = job(0, 1, budget={"maxCost": "3.6"})
    assert world.look().requeue_after == pytest.approx(1800)
    world.run("flowers-1", 2)
    world.settle()
    assert world.look().requeue_after == pytest.approx(1200)


def test_what_the_pods_are_told():
    world = job()
    spec = world.jobs["flowers-1"]["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (3, 3, 0)
    (container,) = spec["template"]["spec"]["containers"]
    told = {item["name"]: item.get("value") for item in container["env"]}
    assert told["PET_NNODES"] == "2:3"
    assert '"microBatchSize": 22' in told["DARKROOM_CONFIG"]  # of a batch of 64


def test_a_micro_batch_of_ones_own_stays():
    world = job(vision=VISION | {"microBatchSize": 8})
    (container,) = world.jobs["flowers-1"]["spec"]["template"]["spec"]["containers"]
    assert '"microBatchSize": 8' in next(
        item["value"] for item in container["env"] if item["name"] == "DARKROOM_CONFIG"
    )
