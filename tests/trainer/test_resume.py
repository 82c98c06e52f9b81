"""The headline promise: a run is the same, whatever number of processes computed its parts."""

import pytest
import torch

from darkroom_trainer.checkpoint import Checkpoints
from tests.trainer import members
from tests.trainer.processes import start_node, together, toy_config


def differences(one, other) -> dict[str, float]:
    assert one.keys() == other.keys()
    pairs = {name: (torch.as_tensor(one[name]).double(), torch.as_tensor(other[name]).double()) for name in one}
    return {name: float((a - b).abs().max()) for name, (a, b) in pairs.items()}


def assert_same(one, other, *, within: float = 1e-6) -> None:
    worst = max(differences(one, other).items(), key=lambda item: item[1])
    assert worst[1] <= within, f"{worst[0]} differs by {worst[1]:.2e}"


@pytest.mark.parametrize(
    ("vision", "worlds"),
    [
        pytest.param({}, (2, 3, 1), id="2 then 3, one of them idle, then 1"),
        pytest.param(
            {
                "batchSize": 40,
                "microBatchSize": 8,
                "ema": {"decay": "0.9"},
                "optimizer": {"name": "AdamW", "learningRate": "0.003", "clipNorm": "1"},
            },
            (3, 1, 2),
            id="uneven shares, AdamW, clipping and EMA",
        ),
    ],
)
def test_interrupted_and_continued_on_other_worlds_equals_uninterrupted(tmp_path, vision, worlds):
    whole = toy_config(tmp_path / "whole", faults={"samples": 480}, **vision)
    parts = toy_config(tmp_path / "parts", faults={"samples": 480}, **vision)
    together(worlds[0], members.train_member, whole)

    per_process = [max(1, -(-members_steps(parts) // w)) for w in worlds]
    for world, leave_at in zip(worlds[:2], (per_process[0] * 5, per_process[1] * 6), strict=True):
        ended = together(world, members.train_member, parts, leave_at)
        assert {end["reason"] for end in ended} == {"AskedToLeave"}
        assert len({end["step"] for end in ended}) == 1
    end, *_ = together(worlds[2], members.train_member, parts)
    assert end["reason"] == "Completed"
    assert end["message"]["resumedStep"] > 5
    assert_same(members.newest(tmp_path / "whole/run"), members.newest(tmp_path / "parts/run"))

    content = Checkpoints(tmp_path / "parts/run/checkpoints", keep=1).newest().counters()
    assert [world for _, world in content["progress"]["worlds"]] == list(worlds)


def members_steps(config) -> int:
    """Micro-batches of a step."""
    vision = config.vision
    return -(-vision.batch_size // vision.micro_batch_size) if vision.micro_batch_size else 2


def test_killed_without_a_word_it_continues_from_the_last_checkpoint(tmp_path):
    """Checkpoints come every second, the steps are slowed down; one process is killed, both are started again."""
    slow = {"samples": 480, "step_sleep": 0.2, "at_step": 14, "rank": 1, "do": "kill"}
    config = toy_config(tmp_path / "cut", faults=slow, every=1)
    node = start_node(config, tmp_path, processes=2).wait()
    assert (node.code, node.message.reason) == (137, "Killed")
    assert node.message.checkpoint_step > 0
    assert node.message.step >= node.message.checkpoint_step

    config = toy_config(tmp_path / "cut", faults={"samples": 480}, every=1)
    (end,) = together(1, members.train_member, config)
    assert end["message"]["resumedStep"] == node.message.checkpoint_step
    whole = toy_config(tmp_path / "whole", faults={"samples": 480})
    together(2, members.train_member, whole)
    assert_same(members.newest(tmp_path / "whole/run"), members.newest(tmp_path / "cut/run"))


def test_a_finished_run_finishes_again_with_the_same_model(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 240})
    (first,) = together(1, members.train_member, config)
    (again,) = together(1, members.train_member, config)
    assert again["reason"] == "Completed"
    assert again["message"]["model"] == first["message"]["model"]
    metrics = {metric["name"]: metric["value"] for metric in again["message"]["metrics"]}
    assert {m["name"]: m["value"] for m in first["message"]["metrics"] if m["name"] != "train/loss"} == metrics


def test_accumulation_equals_one_big_batch(tmp_path):
    """Exactly, for a network without BatchNorm, which sees 12 images instead of 48, and without random draws."""
    states = []
    for name, micro in (("one", 48), ("four", 12)):
        plain = {"dropout": 0.0, "noise": 0.0, "norm": False}
        config = toy_config(tmp_path / name, faults=plain, microBatchSize=micro)
        (state,) = together(1, members.gradient_member, config)
        states.append(state)
    assert_same(*states)


def test_batchnorm_counts_steps_and_averages_micro_batches(tmp_path):
    config = toy_config(tmp_path / "four", faults={"dropout": 0.0, "noise": 0.0}, microBatchSize=12)
    (four,) = together(1, members.gradient_member, config)
    (one,) = together(1, members.gradient_member, toy_config(tmp_path / "one", faults={"dropout": 0.0, "noise": 0.0}))
    assert int(four["features.1.num_batches_tracked"]) == 3
    assert 0 < differences(one, four)["features.1.running_mean"] < 0.01


def test_processes_hold_the_same_weights_and_statistics(tmp_path):
    config = toy_config(tmp_path)
    states = together(2, members.gradient_member, config)
    assert max(differences(*states).values()) == 0.0
    (alone,) = together(1, members.gradient_member, toy_config(tmp_path / "alone", microBatchSize=24))
    assert_same(alone, states[0])


def test_evaluation_counts_each_sample_once_at_any_world_size(tmp_path):
    results = [
        together(world, members.evaluate_member, toy_config(tmp_path / str(world), microBatchSize=37, batchSize=40))
        for world in (1, 2, 3)
    ]
    reference = results[0][0]
    assert reference["count"] == 300
    for metrics in (m for result in results for m in result):
        assert metrics["count"] == 300
        assert metrics["top1"] == reference["top1"]
        assert metrics["loss"] == pytest.approx(reference["loss"], abs=1e-6)
    assert torch.isfinite(torch.tensor(reference["loss"]))
