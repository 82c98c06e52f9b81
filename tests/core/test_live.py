"""What live reports change, and what they never may."""

import pytest

from darkroom_api.report import Action, Best, LiveReport, Metric, Reason
from darkroom_api.v1alpha1.straggler import Straggler
from darkroom_operator.core.training_job import live
from darkroom_operator.core.types import Live
from tests.core.test_plan import running
from tests.core.world import START, World, message

BEST = Best(metric="val/top1", value="0.9", epoch=2)
SLOW = Straggler(rank=3, ratio="1.8")


def reported(world: World, **fields) -> None:
    """A report comes in and is looked at."""
    world.report(**fields)
    world.settle()


def test_a_report_becomes_the_progress_that_people_see():
    world = running()
    reported(
        world,
        epoch=2,
        step=24,
        images_per_second="812",
        eta_seconds=2460,
        eta_low_seconds=2280,
        eta_high_seconds=2820,
        metrics=[Metric(name="train/loss", value="0.4")],
        best=BEST,
        checkpoint_step=20,
    )
    assert world.status["progress"] == {
        "epoch": 2,
        "epochs": 10,
        "step": 24,
        "percent": 24,
        "imagesPerSecond": "812",
        "etaSeconds": 2460,
        "etaLowSeconds": 2280,
        "etaHighSeconds": 2820,
        "eta": "41m (38m-47m)",
        "checkpointStep": 20,
        "metrics": [{"name": "train/loss", "value": "0.4"}],
        "stepTime": "2026-01-01T00:00:00Z",
        "reportTime": "2026-01-01T00:00:00Z",
    }
    assert world.status["best"]["value"] == "0.9"


def test_who_holds_up_the_others_is_shown_and_told_once():
    world = running()
    for step, straggler in ((1, None), (2, SLOW), (3, SLOW.model_copy(update={"ratio": "2.1"})), (4, None)):
        world.wait(10)
        reported(world, step=step, straggler=straggler)
        shown = world.status["progress"].get("straggler")
        assert shown == (straggler and straggler.to_wire())
    told = [event.note for event in world.events if event.reason == "Straggler"]
    assert told == ["rank 3 takes 1.8 times as long as the median of the others: all of them wait for it"]


@pytest.mark.parametrize(
    ("seconds", "low", "high", "text"),
    [
        pytest.param(None, None, None, None, id="unknown"),
        pytest.param(0, None, None, "0s", id="over"),
        pytest.param(99, None, None, "99s", id="seconds"),
        pytest.param(100, 90, 119, "2m (90s-2m)", id="minutes"),
        pytest.param(11100, 10000, 12000, "3h05m (2h47m-3h20m)", id="hours"),
        pytest.param(260000, 172800, 9 * 10**6, "3d00h (2d00h-104d)", id="days"),
        pytest.param(2**53, 2**53, 2**53, "1000000d (1000000d-1000000d)", id="nonsense is bounded"),
    ],
)
def test_eta(seconds, low, high, text):
    world = running()
    reported(world, eta_seconds=seconds, eta_low_seconds=low, eta_high_seconds=high)
    assert world.status["progress"].get("eta") == text
    assert len(text or "") <= 48


@pytest.mark.parametrize(
    ("after", "fields", "written"),
    [
        pytest.param(5, {"step": 20}, False, id="another step has time"),
        pytest.param(10, {"step": 20}, True, id="ten seconds are over"),
        pytest.param(59, {"step": 10}, False, id="no step: only a sign of life"),
        pytest.param(60, {"step": 10}, True, id="a sign of life now and then"),
        pytest.param(1, {"step": 20, "epoch": 1}, True, id="an epoch's end"),
        pytest.param(1, {"step": 10, "best": BEST}, True, id="a better model"),
        pytest.param(1, {"step": 10, "straggler": SLOW}, True, id="a process that holds up the others"),
    ],
)
def test_when_a_report_is_worth_a_write(after, fields, written):
    world = running()
    reported(world, step=10)
    patches = len(world.patches)
    world.wait(after)
    reported(world, **fields)
    assert len(world.patches) - patches == written


def test_an_hour_of_training_costs_no_more_than_a_write_in_ten_seconds():
    world = running()
    before = len(world.patches)
    for step in range(720):
        world.wait(5)
        reported(world, step=step, steps=1000, epoch=step // 100)
    assert len(world.patches) - before <= 360 + 8


def test_an_older_report_of_another_replica_does_not_turn_back_the_clock():
    world = running()
    world.wait(30)
    reported(world, step=50, epoch=5)
    world.report(step=40, epoch=4)
    world.live = Live(world.live.uid, 1, START, world.live.report)
    world.settle()
    assert world.status["progress"]["epoch"] == 5


@pytest.mark.parametrize(
    ("attempt", "uid"),
    [pytest.param(2, None, id="another attempt"), pytest.param(1, "uid-of-a-namesake", id="another job of this name")],
)
def test_reports_of_others_change_nothing(attempt, uid):
    world = running()
    world.report(attempt=attempt)
    world.live = Live(uid or world.live.uid, world.live.attempt, world.live.received, world.live.report)
    world.settle()
    assert "progress" not in world.status


@pytest.mark.parametrize(
    ("attempt", "sequence", "uid", "newer"),
    [
        pytest.param(2, 8, "a", True, id="next"),
        pytest.param(2, 7, "a", False, id="the same again"),
        pytest.param(2, 6, "a", False, id="late"),
        pytest.param(3, 1, "a", True, id="a new attempt begins anew"),
        pytest.param(1, 99, "a", False, id="an attempt that is over"),
        pytest.param(1, 1, "b", True, id="a new job of this name"),
    ],
)
def test_what_is_newer(attempt, sequence, uid, newer):
    known = Live("a", 2, START, LiveReport(sequence=7))
    assert live.is_newer(known, Live(uid, attempt, START, LiveReport(sequence=sequence))) is newer
    assert live.is_newer(None, known)


def test_the_last_message_wins_over_the_last_report():
    world = running(numNodes=1)
    reported(world, step=10, eta_seconds=90)
    world.end("flowers-1", 0, 0, message(step=100, steps=100, epoch=10))
    world.settle()
    assert (world.status["state"], world.status["progress"]["step"]) == ("Complete", 100)
    assert not {"eta", "etaSeconds", "stepTime", "reportTime"} & set(world.status["progress"])


def test_a_node_that_is_lost_without_a_word_loses_only_what_was_not_saved():
    world = running(numNodes=1)
    world.wait(100)
    world.report(step=80, checkpoint_step=60, time={"compute": 80.0})  # newer than what is stored
    world.disrupt("flowers-1", 0)
    world.settle()
    time = world.status["time"]
    assert (float(time["compute"]), float(time["lostWork"])) == (pytest.approx(60), pytest.approx(20))
    assert (world.status["progress"]["step"], world.status["progress"]["checkpointStep"]) == (80, 60)


def test_an_operator_that_forgot_the_reports_shows_the_last_progress_without_an_eta():
    world = running(numNodes=1)
    reported(world, step=30, eta_seconds=70)
    world.live = None
    world.disrupt("flowers-1", 0)
    world.settle()
    assert world.status["progress"]["step"] == 30
    assert not {"eta", "etaSeconds", "stepTime", "reportTime"} & set(world.status["progress"])


# --- Leaving ---


def action(world: World, attempt: int = 1) -> Action:
    return live.reply(world.body, attempt, accepted=True).action


def test_suspend_asks_first_and_the_pods_are_gone_before_they_are_made_to():
    world = running()
    reported(world)
    assert action(world) == Action.CONTINUE
    world.edit(suspend=True)
    world.settle()
    assert action(world) == Action.YIELD
    assert "deletionTimestamp" not in world.jobs["flowers-1"]["metadata"]
    assert world.look().requeue_after == pytest.approx(60)
    world.end("flowers-1", 0, 75, message(Reason.ASKED_TO_LEAVE, 75, step=12, steps=100, checkpoint_step=12))
    world.settle()
    assert world.condition("Suspended")[0] == "False"
    world.leave("flowers-1")
    world.settle()
    assert world.condition("Suspended") == ("True", "Suspended")
    assert (world.status["restarts"], world.status["disruptions"]) == (0, 0)
    assert world.status["attempts"][0]["result"] == "Suspended"


def test_pods_that_do_not_leave_are_made_to_even_by_an_operator_that_has_just_started():
    world = running()
    reported(world)
    world.edit(suspend=True)
    world.settle()
    world.live = None
    world.wait(59)
    world.settle()
    assert "deletionTimestamp" not in world.jobs["flowers-1"]["metadata"]
    world.wait(1)
    world.settle()
    assert "deletionTimestamp" in world.jobs["flowers-1"]["metadata"]


@pytest.mark.parametrize(
    "silence", [pytest.param(31, id="not heard for long"), pytest.param(None, id="never heard: a container job")]
)
def test_who_cannot_be_asked_is_made_to_leave_at_once(silence):
    world = running()
    if silence:
        reported(world)
        world.wait(silence)
    world.edit(suspend=True)
    world.settle()
    assert "deletionTimestamp" in world.jobs["flowers-1"]["metadata"]
    assert "yieldTime" not in world.status["attempts"][0]


def test_resumed_before_it_left_it_goes_on():
    world = running()
    reported(world)
    world.edit(suspend=True)
    world.settle()
    world.edit(suspend=False)
    world.settle()
    assert action(world) == Action.CONTINUE
    assert world.status["state"] == "Running"
    assert "yieldTime" not in world.status["attempts"][0]


def test_the_deadline_asks_first_and_its_attempt_is_accounted_for():
    world = running(activeDeadlineSeconds=100)
    world.wait(90)
    reported(world)
    world.wait(10)
    world.settle()
    assert not world.status["finished"]
    assert world.condition("Ready") == ("False", "DeadlineExceeded")
    assert action(world) == Action.YIELD
    world.end("flowers-1", 0, 75, message(Reason.ASKED_TO_LEAVE, 75, step=12, steps=100, checkpoint_step=12))
    world.leave("flowers-1")
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")
    attempt = world.status["attempts"][0]
    assert (attempt["result"], attempt["reason"]) == ("Failed", "DeadlineExceeded")
    assert world.status["disruptions"] == 0
    assert world.status["progress"]["checkpointStep"] == 12
    assert [event.reason for event in world.events][-1] == "DeadlineExceeded"


def test_whoever_ends_well_while_it_is_asked_to_leave_is_complete():
    world = running(activeDeadlineSeconds=100, numNodes=1)
    world.wait(90)
    reported(world)
    world.wait(10)
    world.settle()
    world.end("flowers-1", 0, 0, message(step=100, steps=100))
    world.settle()
    assert world.status["state"] == "Complete"


def test_the_deadline_does_not_wait_for_ever():
    world = running(activeDeadlineSeconds=100)
    world.wait(90)
    reported(world)
    world.wait(10)
    world.settle()
    world.wait(60)
    world.settle()
    assert "deletionTimestamp" in world.jobs["flowers-1"]["metadata"]
    world.leave("flowers-1")
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")


def test_a_pod_of_an_attempt_that_is_over_is_told_to_leave():
    world = running(restart={"maxRestarts": 1, "backoffSeconds": 0})
    world.end("flowers-1", 0, 70)
    world.leave("flowers-1")
    world.settle()
    world.look()
    assert world.status["attempt"] == 2
    told = live.reply(world.body, 1, accepted=True)
    assert (told.action, told.accepted) == (Action.YIELD, False)
    assert action(world, attempt=2) == Action.CONTINUE
    assert action(world, attempt=3) == Action.CONTINUE  # the status lags


def test_a_pod_of_a_job_that_has_ended_is_told_to_leave():
    world = running(numNodes=1)
    world.end("flowers-1", 0, 0)
    world.settle()
    assert action(world) == Action.YIELD


def test_a_job_without_a_status_goes_on():
    told = live.reply({"metadata": {}, "spec": {}}, 1, accepted=False)
    assert (told.action, told.accepted, told.reason) == (Action.CONTINUE, False, "a newer report is known")
