"""Schedules that are fitted to the time there is: where they end, that they end at zero, and that all processes agree."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom_api.report import ExitCode, Reason
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.host import Host
from darkroom_trainer.pace import Pace, TimeBudget
from darkroom_trainer.tempo import Tempo
from darkroom_trainer.train import train
from tests.trainer import members
from tests.trainer.processes import together, toy_config
from tests.trainer.test_resume import assert_same
from tests.trainer.toy_task import Toy


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("DARKROOM_CPU_LIMIT", "1")


# --- The line through the schedule ---


def test_with_time_enough_a_position_is_its_step():
    pace = Pace(100, 100)
    assert [pace.at(step) for step in (0, 1, 33, 99)] == [0, 1, 33, 99]
    assert pace.to(250, step=10) is pace
    assert (pace.bent, pace.dump()) == (False, None)


def test_a_bent_schedule_ends_where_the_whole_one_does():
    pace = Pace(100, 100).to(40, step=20)
    assert pace.at(20) == 20
    assert pace.at(30) == 60
    assert pace.at(40) == 100
    again = Pace.load(100, json.loads(json.dumps(pace.dump())))
    assert again == pace


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        pytest.param(605, 600, id="noise is not followed"),
        pytest.param(700, 700, id="more time"),
        pytest.param(450, 450, id="less time"),
        pytest.param(200, 200, id="no time"),
        pytest.param(50, 200, id="less than no time"),
        pytest.param(995, 995, id="nearly all of it"),
        pytest.param(4000, 1000, id="more than enough"),
    ],
)
def test_another_end(end, expected):
    assert Pace(1000, 600, since=100, position=100).to(end, step=200).end == expected


@given(st.integers(2, 500), st.lists(st.tuples(st.integers(1, 50), st.integers(0, 600)), max_size=8))
def test_a_position_never_goes_back_and_never_beyond_the_end(steps, changes):
    pace, step, last = Pace(steps, steps), 0, 0.0
    for advance, end in changes:
        step = min(step + advance, pace.end)
        assert last - 1e-9 <= pace.at(step) <= steps + 1e-6
        last, pace = pace.at(step), pace.to(end, step=step)
        assert step <= pace.end <= steps
    if pace.end > step:
        assert pace.at(pace.end) == pytest.approx(steps)


# --- How far the time reaches ---


def tempo(rate: float = 100, *evaluations: float) -> Tempo:
    """Batches of 10 of 100 images: a step takes 10 / rate seconds."""
    found = Tempo(Plan(100, 10, 10, 100, seed=0), {"train": 100, "val": 50, "test": 50})
    found.add_steps(10, 100 / rate)
    for seconds in evaluations:
        found.add_evaluation(seconds)
    return found


@pytest.mark.parametrize(
    ("measured", "seconds_left", "saving", "expected"),
    [
        # 98 s less an evaluation of val and test by the speed of training: 97 s for steps of 0.1 s and 0.05 s evaluation
        pytest.param(tempo(), 100, 0, 20 + int(97 / 0.15), id="before there was an evaluation"),
        pytest.param(tempo(100, 2.0, 2.0, 9.0), 100, 0, 20 + int(94 / 0.3), id="the usual evaluation"),
        pytest.param(tempo(100, 2.0), 100, 3.0, 20 + int(85 / 0.3), id="saving takes its time"),
        pytest.param(tempo(100, 2.0), 3, 0, 20, id="time for the end alone"),
        pytest.param(tempo(100, 2.0), -5, 0, 20, id="none left"),
    ],
)
def test_last_step(measured, seconds_left, saving, expected):
    assert measured.last_step(20, seconds_left=seconds_left, saving=saving) == expected


def test_no_speed_no_end():
    assert Tempo(Plan(100, 10, 10, 1, seed=0), {"val": 5}).last_step(0, seconds_left=9, saving=0) is None


def test_the_operators_word_counts_before_the_own_clock():
    host = Host(clock=Clock(now() - 30))
    budget = TimeBudget(100, used=50, host=host)
    assert budget.seconds_left == pytest.approx(20, abs=1)
    host.seconds_left = lambda: 7.0
    assert budget.seconds_left == 7.0
    assert TimeBudget(None, used=0, host=Host()).seconds_left is None


# --- The run ---

LONG = {"schedule": {"epochs": 200, "warmupEpochs": "0", "decay": "Linear"}}


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_ends_in_time_at_a_learning_rate_of_nearly_zero(tmp_path):
    """200 epochs would take minutes; there are eight seconds, the last evaluation, test and export among them."""
    config = toy_config(tmp_path, faults={"samples": 240, "step_sleep": 0.02}, **LONG)
    config = config.model_copy(update={"budget_seconds": 8})
    began = now()
    message = train(config, Toy(config), Host(clock=Clock(now())))
    assert now() - began < 10  # two more than there are: other tests share this machine
    assert (message.reason, message.exit_code) == (Reason.BUDGET_SPENT, ExitCode.DONE)
    assert message.step == message.steps < 1000
    told = lines(tmp_path / "run")
    last = [line for line in told if line["event"] == "progress"][-1]
    assert last["learningRate"] < 0.02 * 0.05
    assert [line["event"] for line in told].count("bent") == 1
    evaluations = [line for line in told if line["event"] == "evaluation"]
    assert evaluations[-2]["step"] == message.step, "the last weights were measured"
    assert next(iter(evaluations[-1]["metrics"])).startswith("test/")
    assert message.model is not None


def test_with_time_enough_nothing_is_different(tmp_path):
    for name, seconds in (("with", 3600), ("without", None)):
        config = toy_config(tmp_path / name, faults={"samples": 240}, schedule={"epochs": 3})
        config = config.model_copy(update={"budget_seconds": seconds})
        assert train(config, Toy(config), Host(clock=Clock(now()))).reason == Reason.COMPLETED
    assert_same(members.newest(tmp_path / "with/run"), members.newest(tmp_path / "without/run"), within=0)


def test_all_processes_bend_at_the_same_step_and_go_on_so_after_a_break(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 240, "step_sleep": 0.02}, every=1, **LONG)
    config = config.model_copy(update={"budget_seconds": 16})
    ended = together(2, members.train_member, config, 30)
    assert {end["reason"] for end in ended} == {"AskedToLeave"}
    assert len({end["step"] for end in ended}) == 1
    ended = together(2, members.train_member, config)
    assert {end["reason"] for end in ended} == {"BudgetSpent"}
    assert len({end["step"] for end in ended}) == 1
    seconds = sum(sum(line["time"].values()) for line in last_of_each_start(tmp_path / "run"))
    assert seconds < 60  # the whole schedule takes minutes; where other tests share the machine, the end may be slow


def last_of_each_start(run: Path) -> list[dict]:
    """The last report of progress before each `resumed`, and of all."""
    found, last = [], None
    for line in lines(run):
        if line["event"] == "resumed" and last:
            found.append(last)
        last = line if line["event"] == "progress" else last
    return [*found, last]
