"""What the trainer measures of its steps, in real processes over gloo; and the operator's forecast held against it.

In seconds of the processor, so that a busy machine does not matter; both runs have two processes at a time, for two of
them may share a core.
"""

from pathlib import Path

import pytest

from darkroom_api.step_times import StepTimes
from darkroom_operator.core.scaling import step_at
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.host import Host
from darkroom_trainer.train import train
from tests.trainer import members
from tests.trainer.processes import together, toy_config
from tests.trainer.test_transfer import WEIGHTS
from tests.trainer.toy_task import Toy

HEAVY = 3 * 32 * 9 + 32 * 64 * 9 + 64 * 64 * 9 + 64 * 10 + 10
"""Weights of members.Heavy."""


def measured(folder: Path, *, alone: bool) -> StepTimes:
    config = toy_config(folder, faults={"samples": 96}, schedule={"epochs": 8}, microBatchSize=24)
    told, _ = together(2, members.measured_member, config, alone)
    return StepTimes.model_validate(told)


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory) -> tuple[StepTimes, StepTimes]:
    folder = tmp_path_factory.mktemp("measured")
    return measured(folder / "one", alone=True), measured(folder / "two", alone=False)


def test_the_forecast_of_one_process_holds_for_two(one_and_two):
    """Two processes are two nodes to it: the range for a network that nobody has measured holds both."""
    one, two = one_and_two
    expected = step_at(one, 2)
    took = float(two.compute) + float(two.communication) + float(two.data_wait)
    assert expected.low <= took <= expected.high


def test_what_is_measured(one_and_two):
    one, two = one_and_two
    assert (one.nodes, one.processes, one.all_reduce) == (1, 1, "0")
    assert (two.nodes, two.processes, two.batch, two.micro_batch) == (1, 2, 48, 24)
    assert float(two.steps_per_epoch) == pytest.approx(2)
    assert two.gradient_bytes == one.gradient_bytes == 4 * HEAVY
    assert float(two.low) <= float(two.high)
    assert all(float(value) > 0 for value in (two.compute, two.all_reduce, two.evaluation, two.startup))


def test_phases_of_transfer_learning_have_no_common_step(tmp_path):
    transfer = {"model": WEIGHTS, "transfer": {"policy": "HeadThenAll"}}
    for name, recipe in (("phases", transfer), ("one", {})):
        config = toy_config(tmp_path / name, faults={"samples": 96}, schedule={"epochs": 8}, **recipe)
        message = train(config, Toy(config), Host(clock=Clock(now())))
        assert (message.step_times is None) is (name == "phases")
