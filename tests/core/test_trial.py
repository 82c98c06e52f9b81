"""A TrainingJob that is a sweep's trial: its curve, and what becomes of it when the sweep wants no more of it."""

import pytest

from darkroom_api import names
from darkroom_api.report import Action, LiveReport, Metric, Reason
from darkroom_api.v1alpha1.training_job_status import Point, TimeSpent
from darkroom_operator.core.training_job import live
from darkroom_operator.core.training_job.curve import MOST_POINTS, with_point
from tests.core.test_plan import running
from tests.core.world import World, message


def trial(**spec) -> World:
    """A job that runs, as a sweep made it."""
    world = running(**spec)
    world.body["metadata"]["annotations"] = {names.ANNOTATION_OBJECTIVE: "val/top1"}
    return world


def wanted_no_more(world: World, reason: str = "Pruned") -> None:
    world.body["metadata"]["annotations"][names.ANNOTATION_LEAVE] = f"{reason}: rung 3: 0.1 is number 3 of 3"
    world.settle()


def top1(value: str) -> list[Metric]:
    return [Metric(name="val/top1", value=value), Metric(name="train/loss", value="1")]


def test_values_by_epoch_are_kept():
    world = trial()
    for epoch, value in ((1, "0.5"), (2, "0.6"), (3, "0.7")):
        world.report(epoch=epoch, step=epoch * 10, metrics=top1(value))
        world.settle()
    assert world.status["curve"] == [{"epoch": e, "value": v} for e, v in ((1, "0.5"), (2, "0.6"), (3, "0.7"))]


def test_a_job_of_its_own_keeps_none():
    world = running()
    world.report(epoch=1, metrics=top1("0.5"))
    world.settle()
    assert "curve" not in world.status


@pytest.mark.parametrize("value", ["inf", "-inf", "fast", ""])
def test_what_is_no_number_is_left_out(value):
    assert with_point(None, LiveReport(sequence=1, epoch=1, metrics=top1(value)), "val/top1") is None


def test_an_epochs_later_word_wins_and_a_restart_repeats_epochs():
    curve: list[Point] | None = None
    for epoch, value in ((1, "0.1"), (2, "0.2"), (2, "0.3"), (3, "0.4"), (2, "0.35")):
        curve = with_point(curve, LiveReport(sequence=1, epoch=epoch, metrics=top1(value)), "val/top1")
    assert [(p.epoch, p.value) for p in curve or []] == [(1, "0.1"), (2, "0.35")]


def test_points_know_the_seconds_of_training():
    """Of this attempt and of those before it; starts, and pauses between attempts, are no training."""
    said = LiveReport(
        sequence=1, epoch=2, metrics=top1("0.5"), time={"startup": 20.0, "compute": 30.4, "dataWait": 2.0}
    )
    assert [point.seconds for point in with_point(None, said, "val/top1") or []] == [32]
    before = TimeSpent(total="500", startup="40", compute="60", evaluation="7.2", queued="90", other="300")
    assert [point.seconds for point in with_point(None, said, "val/top1", before) or []] == [100]
    silent = LiveReport(sequence=1, epoch=2, metrics=top1("0.5"))
    assert [point.seconds for point in with_point(None, silent, "val/top1") or []] == [None]


def test_a_long_training_keeps_every_second_epoch_then_every_fourth():
    curve: list[Point] | None = None
    for epoch in range(1, 1001):
        curve = with_point(curve, LiveReport(sequence=1, epoch=epoch, metrics=top1("0.5")), "val/top1")
        assert curve
        assert len(curve) <= MOST_POINTS
        assert curve[-1].epoch == epoch
    epochs = [point.epoch for point in curve or []]
    assert epochs == list(range(8, 1001, 8))


@pytest.mark.parametrize("reason", ["Pruned", "SweepEnded"])
def test_it_is_told_in_the_answer_to_its_report_and_ends_well(reason):
    world = trial()
    world.report(epoch=3, metrics=top1("0.1"))
    world.settle()
    wanted_no_more(world, reason)
    assert world.condition("Ready") == ("False", reason)
    answer = live.reply(world.body, 1, accepted=True)
    assert answer.action == Action.PRUNE
    assert "rung 3: 0.1 is number 3 of 3" in (answer.reason or "")
    for index in (0, 1):
        world.end("flowers-1", index, 0, message(Reason.PRUNED))
    world.settle()
    assert (world.condition("Complete"), world.status["finished"]) == (("True", reason), True)
    assert world.status["curve"] == [{"epoch": 3, "value": "0.1"}]


def test_without_live_reports_its_pods_are_made_to_leave_and_that_is_a_good_end_too():
    world = trial()
    wanted_no_more(world)
    assert "deletionTimestamp" in world.jobs["flowers-1"]["metadata"]
    world.leave("flowers-1", exit_code=143)
    world.settle()
    assert world.condition("Complete") == ("True", "Pruned")
    assert (world.status["restarts"], list(world.jobs)) == (0, [])


def test_between_two_attempts_it_ends_at_once():
    world = trial(restart={"maxRestarts": 1, "backoffSeconds": 600})
    world.end("flowers-1", 0, 70)
    world.leave("flowers-1")
    world.settle()
    wanted_no_more(world)
    assert world.condition("Complete") == ("True", "Pruned")


def test_whoever_has_finished_meanwhile_is_complete():
    """The whole schedule ran: its value counts as that."""
    world = trial()
    world.report(epoch=3)
    world.settle()
    wanted_no_more(world)
    for index in (0, 1):
        world.end("flowers-1", index, 0, message(Reason.COMPLETED))
    world.settle()
    assert world.condition("Complete") == ("True", "Completed")


@pytest.mark.parametrize("text", ["", "Bored: of it", "Failed: no", "Pruned"])
def test_an_order_that_is_none_of_a_sweeps(text):
    world = trial()
    world.body["metadata"]["annotations"][names.ANNOTATION_LEAVE] = text
    world.settle()
    assert world.status["state"] == ("Running" if text != "Pruned" else "Stopping")


def test_metrics_of_a_program_that_counts_no_steps():
    """A container that says what it reached, and nothing else."""
    world = trial(numNodes=1)
    world.end("flowers-1", 0, 0, message(metrics=top1("0.9")))
    world.settle()
    assert world.status["progress"]["metrics"][0] == {"name": "val/top1", "value": "0.9"}
