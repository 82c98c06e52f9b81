"""FSDP: the same run as one process's, in parts."""

import pytest
from safetensors.torch import save_file

from darkroom_trainer.models import build_model
from darkroom_trainer.sharded import blocks
from darkroom_trainer.stages import stages_of
from tests.trainer import members
from tests.trainer.images import vision_config, write_colors
from tests.trainer.processes import together, toy_config
from tests.trainer.test_resume import assert_same

FSDP = {"parallelism": {"strategy": "FSDP"}}
RECIPE = {
    "batchSize": 40,
    "microBatchSize": 8,
    "ema": {"decay": "0.9"},
    "optimizer": {"name": "AdamW", "learningRate": "0.003", "clipNorm": "1"},
}
"""Five micro-batches: two processes have three each, of which one must not count."""


def test_shards_and_one_process_take_turns_and_equal_an_uninterrupted_run(tmp_path):
    """FSDP on 2, DDP on 3, one process, FSDP on 3: weights, statistics, averages and momentum."""
    whole = toy_config(tmp_path / "whole", faults={"samples": 480}, **RECIPE)
    parts = toy_config(tmp_path / "parts", faults={"samples": 480}, **RECIPE)
    shards = toy_config(tmp_path / "parts", faults={"samples": 480}, **RECIPE, **FSDP)
    (alone,) = together(1, members.train_member, whole)
    for world, config, leave_at in ((2, shards, 9), (3, parts, 5), (1, parts, 10)):
        ended = together(world, members.train_member, config, leave_at)
        assert {end["reason"] for end in ended} == {"AskedToLeave"}, ended
        assert len({end["step"] for end in ended}) == 1
    end, *_ = together(3, members.train_member, shards)
    assert end["reason"] == "Completed"
    assert_same(members.newest(tmp_path / "whole/run"), members.newest(tmp_path / "parts/run"))
    metrics = [{m["name"]: float(m["value"]) for m in end["message"]["metrics"]} for end in (alone, end)]
    assert metrics[1]["test/top1"] == pytest.approx(metrics[0]["test/top1"], abs=0.004)


SMALL = {
    "batchSize": 8,
    "microBatchSize": 4,
    "optimizer": {"learningRate": "0.01"},
    "schedule": {"epochs": 2, "warmupEpochs": "0"},
}
PRETRAINED = {"architecture": "resnet18", "weights": {"claim": "w", "path": "/w.safetensors"}}


@pytest.mark.parametrize(
    ("recipe", "within"),
    [
        pytest.param({}, 1e-5, id="everything learns"),
        pytest.param({"model": PRETRAINED, "transfer": {"policy": "HeadThenAll"}}, 1e-5, id="stages are opened later"),
        pytest.param(
            {"model": {"architecture": "squeezenet1_1"}, "precision": "BFloat16"}, 1e-3, id="weights travel in bfloat16"
        ),
    ],
)
def test_a_real_network_in_shards_learns_as_on_one_process(tmp_path, recipe, within):
    data = write_colors(tmp_path / "data")
    save_file(build_model("resnet18", classes=3, image_size=32).state_dict(), tmp_path / "w.safetensors")
    alone = vision_config(data, tmp_path / "alone", weights=tmp_path, **SMALL, **recipe)
    sharded = vision_config(data, tmp_path / "sharded", weights=tmp_path, **SMALL, **recipe, **FSDP)
    (one,) = together(1, members.share_of_weights_member, alone, 2)
    first, second = together(2, members.share_of_weights_member, sharded, 2)
    assert_same(one["state"], first["state"], within=within)
    assert one["share"] == 1
    assert first["share"] + second["share"] == pytest.approx(1)
    assert first["share"] < 0.6


def test_a_block_is_what_a_stage_runs_in_one_piece():
    network = build_model("resnet18", classes=3, image_size=32)
    found = blocks(stages_of("resnet18", network))
    assert found == [*network.layer2, *network.layer3, *network.layer4]  # those of layer1 are too small to travel alone
    vit = build_model("vit_b_16", classes=3, image_size=32)
    assert blocks(stages_of("vit_b_16", vit)) == [vit.conv_proj, *vit.encoder.layers]
