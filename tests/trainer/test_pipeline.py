"""A pipeline of processes: how the network is cut, and the same run as one process's."""

import pytest

from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.pipelined import check, cut
from tests.trainer import members
from tests.trainer.images import vision_config, write_colors
from tests.trainer.processes import together
from tests.trainer.test_resume import assert_same


@pytest.mark.parametrize(
    ("costs", "parts", "expected"),
    [
        pytest.param([1, 1, 1, 1], 2, [2, 2], id="equal"),
        pytest.param([8, 1, 1, 1], 2, [1, 3], id="a costly stem"),
        pytest.param([1, 1, 1, 8], 3, [1, 2, 1], id="a costly head"),
        pytest.param([1, 2, 3], 3, [1, 1, 1], id="one each"),
        pytest.param([0, 0, 5, 0], 2, [1, 3], id="stages that cost nothing"),
    ],
)
def test_a_network_is_cut_where_the_costliest_part_costs_least(costs, parts, expected):
    found = cut(costs, parts)
    assert [len(part) for part in found] == expected
    assert [number for part in found for number in part] == list(range(len(costs)))


def plan(batch: int, micro_batch: int) -> Plan:
    return Plan(samples=100, batch=batch, micro_batch=micro_batch, epochs=1, seed=0)


@pytest.mark.parametrize(
    ("batch", "micro_batch", "world", "depth", "words"),
    [
        pytest.param(16, 4, 3, 2, "3 processes do not make pipelines of 2", id="a process too many"),
        pytest.param(16, 3, 2, 2, "16 images in 6 micro-batches", id="unequal micro-batches"),
        pytest.param(24, 8, 4, 2, "do not fill 2 pipeline", id="no equal shares"),
        pytest.param(16, 8, 4, 4, "at least 4 for each", id="too few to fill the line"),
    ],
)
def test_what_does_not_fill_the_pipelines_is_refused(batch, micro_batch, world, depth, words):
    with pytest.raises(ConfigError, match=words):
        check(plan(batch, micro_batch), world=world, depth=depth)
    assert check(plan(16, 4), world=4, depth=2) == 2


RECIPE = {
    "batchSize": 8,
    "microBatchSize": 2,
    "optimizer": {"learningRate": "0.01", "clipNorm": "1"},
    "ema": {"decay": "0.9"},
    "schedule": {"epochs": 2, "warmupEpochs": "0"},
    "augmentation": {"mixup": "0.2"},
}


def config_of(tmp_path, run: str, **vision):
    return vision_config(tmp_path / "data", tmp_path / run, **{**RECIPE, **vision})


@pytest.mark.parametrize(
    ("world", "parallelism"),
    [
        pytest.param(2, {"schedule": "GPipe"}, id="GPipe"),
        pytest.param(4, {"stages": 2}, id="two pipelines, 1F1B"),
    ],
)
def test_a_pipeline_learns_as_one_process(tmp_path, world, parallelism):
    write_colors(tmp_path / "data")
    alone = config_of(tmp_path, "alone")
    piped = config_of(tmp_path, "piped", parallelism={"strategy": "Pipeline", **parallelism})
    (one,) = together(1, members.share_of_weights_member, alone, 2, timeout=300)
    first, *_, last = together(world, members.share_of_weights_member, piped, 2, timeout=300)
    assert_same(one["state"], first["state"], within=1e-5)
    assert first["learned"] + last["learned"] == one["learned"]


def test_lines_of_other_lengths_take_turns(tmp_path):
    """3 stages, then 2, then one process: the weights, averages and momentum of one process from the start.

    Without clipping the sums have the same order; these few images magnify a rounding a hundredfold per step.
    """
    write_colors(tmp_path / "data")
    gentle = {"optimizer": {"learningRate": "0.001"}}
    piped = [{"strategy": "Pipeline", "stages": 3}, {"strategy": "Pipeline"}]
    ended = [
        together(
            world,
            members.task_member,
            config_of(tmp_path, "parts", parallelism=parallelism, **gentle),
            leave_at,
            timeout=300,
        )
        for world, parallelism, leave_at in ((3, piped[0], 1), (2, piped[1], 1))
    ]
    assert [{end["reason"] for end in ends} for ends in ended] == [{"AskedToLeave"}] * 2, ended
    (end,) = together(1, members.task_member, config_of(tmp_path, "parts", **gentle), timeout=300)
    (whole,) = together(1, members.task_member, config_of(tmp_path, "whole", **gentle), timeout=300)
    assert {end["reason"], whole["reason"]} == {"Completed"}
    assert_same(members.newest(tmp_path / "whole"), members.newest(tmp_path / "parts"), within=1e-6)
