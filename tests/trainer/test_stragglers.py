"""Who holds up the others."""

import json

import pytest
import torch

from darkroom_trainer.stragglers import Slowest, Stopwatch, Stragglers
from tests.trainer import members
from tests.trainer.processes import together, toy_config

SECOND_SLOW = [1.0, 2.0, 1.0, 1.1]


def seen(*intervals: list[float]) -> tuple[Stragglers, list[int]]:
    """After all intervals, and in which of them there was something to tell."""
    stragglers = Stragglers()
    return stragglers, [number for number, seconds in enumerate(intervals) if stragglers.add(seconds)]


def test_the_slowest_is_compared_with_the_median_of_the_others():
    stragglers, told = seen(SECOND_SLOW)
    assert stragglers.slowest == Slowest(rank=1, ratio=2.0)
    assert not told


@pytest.mark.parametrize(
    ("intervals", "told"),
    [
        pytest.param([SECOND_SLOW] * 50, [29], id="slow for half a minute: told once"),
        pytest.param([SECOND_SLOW] * 29, [], id="not for long"),
        pytest.param([[1.0, 1.4]] * 50, [], id="a little slower"),
        pytest.param([[1.0, 2.0], [2.0, 1.0]] * 25, [], id="taking turns"),
        pytest.param([SECOND_SLOW] * 20 + [[1.0] * 4] + [SECOND_SLOW] * 35, [50], id="slow again after a pause"),
        pytest.param([[1.0, 2.0]] * 30 + [[1.0, 1.0]] * 30 + [[1.0, 2.0]] * 30, [29, 89], id="twice"),
        pytest.param([[3.0, 0.0]] * 50, [], id="an idle process is nobody to be compared with"),
        pytest.param([[3.0]] * 50, [], id="alone"),
    ],
)
def test_a_straggler_is_told_of_when_it_stays_one(intervals, told):
    assert seen(*intervals)[1] == told


def test_one_that_has_recovered_is_no_longer_shown():
    stragglers, _ = seen(*[SECOND_SLOW] * 30)
    assert stragglers.told
    stragglers.add([1.0] * 4)
    assert not stragglers.told


def test_a_stopwatch_adds_up_and_begins_anew():
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch.alone():
            sum(range(10_000))
    assert watch.read() > 0
    assert watch.read() == 0


def test_a_slow_process_is_found_though_all_steps_take_equally_long(tmp_path):
    """Rank 1 sleeps in its forward passes; the others wait for it in the backward pass."""
    config = toy_config(tmp_path, faults={"samples": 240, "slow": 0.3}, schedule={"epochs": 1}, batchSize=48)
    ends = together(3, members.train_member, config.model_copy(deep=True))
    assert {end["reason"] for end in ends} == {"Completed"}
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    slowest = [line["slowest"] for line in lines if line["event"] == "progress"][-1]
    assert slowest["rank"] == 1
    assert slowest["ratio"] > 1.5
