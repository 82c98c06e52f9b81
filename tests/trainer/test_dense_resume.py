"""Segmentation and detection through the whole loop: on several processes, interrupted, continued, and adapted by stages."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom_trainer.models import build_model
from darkroom_trainer.synthetic.scene import Recipe
from darkroom_trainer.synthetic.write import write_coco, write_mask_folder
from tests.trainer import members
from tests.trainer.processes import together
from tests.trainer.scenes import detection_config, segmentation_config
from tests.trainer.test_resume import assert_same

TINY = Recipe(size=(64, 64), classes=("circle", "star"))
GENTLE = {
    "imageSize": 64,
    "batchSize": 8,
    "microBatchSize": 4,
    "augmentation": {"crop": "RandomResized"},
    "optimizer": {"learningRate": "0.001", "clipNorm": "1"},
    "schedule": {"epochs": 2, "warmupEpochs": "0"},
}
"""Steps so small that they do not magnify the rounding of sums in another order."""


def config_of(kind: str, folder: Path, run: Path, *, weights: Path | None = None, **vision):
    make = segmentation_config if kind == "segmentation" else detection_config
    config = make(folder, run, **{**GENTLE, **vision})
    return config.model_copy(update={"weights_dir": str(weights)} if weights else {})


@pytest.fixture(scope="module", params=["segmentation", "detection"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def data(kind, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    write = write_mask_folder if kind == "segmentation" else write_coco
    write(folder, TINY, {"train": 24, "val": 7})
    return folder


def metrics_of(end) -> dict[str, float]:
    found = {metric["name"]: float(metric["value"]) for metric in end["message"]["metrics"]}
    return {name: value for name, value in found.items() if name.startswith("val/")}


def test_interrupted_and_continued_on_another_world_equals_uninterrupted(kind, data, tmp_path):
    """Same weights, and the same metrics, of which each image is counted once by two processes and by one."""
    whole = config_of(kind, data, tmp_path / "whole")
    (end, _) = together(2, members.task_member, whole)
    assert end["reason"] == "Completed"

    parts = config_of(kind, data, tmp_path / "parts")
    ended = together(2, members.task_member, parts, 2)
    assert {e["reason"] for e in ended} == {"AskedToLeave"}
    assert 0 < ended[0]["step"] < 6
    (last,) = together(1, members.task_member, parts)
    assert last["reason"] == "Completed"
    assert last["message"]["resumedStep"] == ended[0]["step"]
    assert_same(members.newest(tmp_path / "whole"), members.newest(tmp_path / "parts"), within=1e-4)
    assert metrics_of(last) == pytest.approx(metrics_of(end), abs=2e-3)


def test_frozen_stages_of_a_backbone_stay_as_the_file_has_them(kind, data, tmp_path):
    """From a file of the classification network; the policy opens the head and the last two stages."""
    state = build_model("mobilenet_v3_large", classes=10, image_size=224, seed=3).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    config = config_of(
        kind,
        data,
        tmp_path / "run",
        weights=tmp_path,
        model={
            "architecture": "lraspp_mobilenet_v3_large" if kind == "segmentation" else "ssdlite320_mobilenet_v3_large",
            "weights": {"claim": "w", "path": "/w.safetensors"},
        },
        transfer={"policy": "LastStages", "stages": 2, "batchNorm": "Frozen"},
        schedule={"epochs": 1, "warmupEpochs": "0"},
    )
    (end,) = together(1, members.task_member, config)
    assert end["reason"] == "Completed"
    after = {key.removeprefix("model."): tensor for key, tensor in members.newest(tmp_path / "run").items()}
    inside = "backbone." if kind == "segmentation" else "backbone.features.0."
    for block, learns in ((0, False), (3, False), (8, True)):
        name = next(key for key in state if key.startswith(f"features.{block}.") and state[key].ndim == 4)
        same = torch.equal(after[inside + name.removeprefix("features.")], state[name])
        assert same != learns, name
    mean = "features.8.block.0.1.running_mean"
    assert torch.equal(after[inside + mean.removeprefix("features.")], state[mean])
