"""spec.budget: at a limit the trainer is asked to finish, and the job ends with what it has learnt."""

import pytest

from darkroom_api.report import Action, Best, Metric, Reason
from darkroom_api.v1alpha1.budget import seconds_of
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_operator.core.training_job import live
from darkroom_operator.core.training_job.budget import seconds_left_of, seconds_of_all
from tests.core.test_plan import running
from tests.core.world import PROFILES, VISION, World, message

LOSS = {"metric": "val/loss", "value": "0.3", "direction": "Minimize"}


def reporting(**spec) -> World:
    """A running job of one node whose trainer has just reported."""
    world = running(numNodes=1, **spec)
    world.report(step=1)
    world.settle()
    return world


def action(world: World) -> Action:
    return live.reply(world.body, 1, accepted=True).action


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1h1m1s", 3661)]
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


def test_the_trainer_is_asked_to_finish_and_the_job_completes():
    world = reporting(budget={"maxDuration": "100s"})
    assert world.look().requeue_after == pytest.approx(100)
    world.wait(95)
    world.report(step=2)
    world.settle()
    assert action(world) == Action.CONTINUE
    world.wait(5)
    world.settle()
    assert action(world) == Action.STOP
    assert world.condition("Ready") == ("False", "BudgetSpent")
    assert "deletionTimestamp" not in world.jobs["flowers-1"]["metadata"]
    world.end("flowers-1", 0, 0, message(Reason.BUDGET_SPENT, step=40, steps=90))
    world.settle()
    assert world.condition("Complete") == ("True", "BudgetSpent")
    assert "budget.maxDuration: 100 of 100 spent" in world.ready_message


def test_a_trainer_that_measures_and_exports_may_take_longer_than_one_that_saves():
    world = reporting(budget={"maxDuration": "100s"})
    for _ in range(20):
        world.wait(20)
        world.report(step=2)
        world.settle()
    assert action(world) == Action.STOP
    assert "deletionTimestamp" not in world.jobs["flowers-1"]["metadata"]
    world.wait(1000)
    world.settle()
    assert "deletionTimestamp" in world.jobs["flowers-1"]["metadata"]


def test_a_trainer_without_reports_is_stopped():
    world = running(numNodes=1, budget={"maxDuration": "100s"}, restart={"maxRestarts": 3})
    world.wait(100)
    world.settle()
    assert "deletionTimestamp" in world.jobs["flowers-1"]["metadata"]
    world.leave("flowers-1")
    world.settle()
    assert world.condition("Failed") == ("True", "BudgetSpent")
    assert world.created.count("Job/flowers-2") == 0


def test_money_and_accelerators_are_counted_as_they_are_billed():
    """A node costs 3.60 an hour, which is 0.001 a second."""
    world = running(numNodes=2, budget={"maxCost": "0.5"})
    price = float(world.profiles["default"].price_per_node_hour)
    expected = 0.5 / (2 * price) * 3600
    assert world.look().requeue_after == pytest.approx(expected, abs=2)
    world.wait(expected + 2)
    world.settle()
    assert world.condition("Ready") == ("False", "BudgetSpent")
    assert "budget.maxCost" in world.ready_message


def test_nothing_is_spent_where_running_takes_nothing():
    world = running(numNodes=1, budget={"maxGpuHours": "1"})
    assert world.look().requeue_after is None
    world.wait(10**6)
    world.settle()
    assert world.status["state"] == "Running"


def test_earlier_attempts_count_and_no_other_follows():
    world = running(numNodes=1, budget={"maxDuration": "100s"}, restart={"backoffSeconds": 0})
    world.wait(99)
    world.end("flowers-1", 0, 70)
    world.wait(1)
    world.settle()
    assert "Job/flowers-2" in world.created
    world.run("flowers-2")
    world.settle()
    world.wait(1)
    world.settle()
    assert world.condition("Ready") == ("False", "BudgetSpent")


def test_a_budget_may_be_raised_until_it_is_spent():
    world = reporting(budget={"maxDuration": "100s"})
    world.wait(90)
    world.edit(budget={"maxDuration": "1h"})
    world.settle()
    world.wait(90)
    world.settle()
    assert world.status["state"] == "Running"


@pytest.mark.parametrize(
    ("target", "told", "ends"),
    [
        pytest.param({"metric": "val/top1", "value": "0.9"}, {"best": ("val/top1", "0.91")}, True, id="better"),
        pytest.param({"metric": "val/top1", "value": "0.9"}, {"best": ("val/top1", "0.9")}, True, id="equal"),
        pytest.param({"metric": "val/top1", "value": "0.9"}, {"best": ("val/top1", "0.89")}, False, id="worse"),
        pytest.param({"metric": "val/top5", "value": "0.9"}, {"best": ("val/top1", "0.99")}, False, id="another"),
        pytest.param(
            {"metric": "val/top5", "value": "0.9"}, {"metric": ("val/top5", "0.95")}, True, id="not the best's"
        ),
        pytest.param(LOSS, {"metric": ("val/loss", "0.2")}, True, id="a loss"),
        pytest.param(LOSS, {"metric": ("val/loss", "0.4")}, False, id="a large loss"),
    ],
)
def test_the_target_ends_the_training_early(target, told, ends):
    world = running(numNodes=1, budget={"target": target})
    best = told.get("best")
    metric = told.get("metric")
    world.report(
        step=5,
        best=Best(metric=best[0], value=best[1], epoch=1) if best else None,
        metrics=[Metric(name=metric[0], value=metric[1])] if metric else [],
    )
    world.settle()
    assert action(world) == (Action.STOP if ends else Action.CONTINUE)
    if ends:
        world.end("flowers-1", 0, 0, message(Reason.BUDGET_SPENT, step=6, steps=90))
        world.settle()
        assert world.condition("Complete") == ("True", "TargetReached")
        assert f"{target['metric']} is {(best or metric)[1]}" in world.ready_message


def test_a_suspended_job_does_not_fail_for_its_budget():
    world = running(numNodes=1, budget={"maxDuration": "100s"})
    world.wait(90)
    world.edit(suspend=True)
    world.settle()
    world.leave("flowers-1")
    world.settle()
    world.edit(budget={"maxDuration": "10s"})
    world.settle()
    assert world.status["state"] == "Suspended"


# --- What the trainer knows of it ---


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        pytest.param({"maxDuration": "100s"}, 100, id="time"),
        pytest.param({"target": LOSS}, None, id="a target is no limit"),
        pytest.param({"maxCost": "3.6", "maxDuration": "9h"}, 1800, id="money, at 7.2 an hour, before time"),
        pytest.param({"maxGpuHours": "2"}, None, id="accelerator-hours of nodes without accelerators"),
    ],
)
def test_all_seconds_that_a_budget_allows(budget, expected):
    spec = TrainingJobSpec.model_validate({"vision": VISION, "numNodes": 2, "budget": budget}, strict=False)
    assert seconds_of_all(spec, PROFILES["default"]) == expected


def test_a_reporting_trainer_hears_how_long_the_budget_lasts():
    world = reporting(budget={"maxDuration": "100s"})
    world.wait(30)
    assert seconds_left_of(world.facts(), 1) == pytest.approx(70)
    assert seconds_left_of(world.facts(), 2) is None
    world.wait(100)
    assert seconds_left_of(world.facts(), 1) == 0
    assert seconds_left_of(reporting().facts(), 1) is None
    told = live.reply(world.body, 1, accepted=True, seconds_left=12.5)
    assert told.to_wire()["secondsLeft"] == 12.5
