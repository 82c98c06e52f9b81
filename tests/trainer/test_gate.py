"""The gate: scenes pass for scenes, and do not for other images; a job that fails does so before its first step."""

import pytest
import torch

from darkroom_api.report import ExitCode, Fidelity
from darkroom_api.v1alpha1.synthetic import Gate
from darkroom_trainer.checkpoint import Checkpoints
from darkroom_trainer.errors import FidelityError
from darkroom_trainer.gate import check, in_order
from darkroom_trainer.host import Host
from darkroom_trainer.synthetic.fidelity import Sample
from darkroom_trainer.synthetic.scene import Recipe
from darkroom_trainer.synthetic.write import write_class_folder, write_coco, write_mask_folder
from darkroom_trainer.tasks import make_task
from darkroom_trainer.train import Run, train
from tests.trainer import members
from tests.trainer.images import noisy, one_thread, vision_config, write_class
from tests.trainer.processes import together
from tests.trainer.scenes import detection_config, segmentation_config

CLASSES = ("circle", "star")
FOUND = Fidelity(kid="0.3", auc="0.97", tstr="0.5", trtr="0.8", gain="-0.01")
RESNET = {"model": {"architecture": "resnet18"}}
FIELDS = {
    "imageSize": 32,
    "batchSize": 16,
    "workers": 0,
    "schedule": {"epochs": 1},
    "optimizer": {"learningRate": "0.01"},
}


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def gated(**gate):
    return {"source": "Scenes", "gate": {"images": 40, **gate}}


def fidelity_of(config) -> Fidelity:
    run = Run(config, make_task(config), Host())
    assert run.owes_gate() and run.pass_gate() and not run.owes_gate()
    return run.host.message.fidelity


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({}, None),
        ({"maxKid": "0.3", "maxAuc": "0.97", "minTstrRatio": "0.625"}, None),
        ({"maxKid": "0.29"}, "KID is 0.3, more than maxKid 0.29"),
        ({"maxAuc": "0.9"}, "AUC of 0.97, more than maxAuc 0.9"),
        ({"minTstrRatio": "0.7"}, "accuracy of 0.5, from real ones 0.8: less than minTstrRatio 0.7"),
        ({"maxKid": "0", "maxAuc": "0.5"}, "maxKid 0; a probe .* maxAuc 0.5: see vision.synthetic"),
    ],
)
def test_thresholds(gate, words):
    gate = Gate.model_validate(gate, strict=False)
    if words is None:
        check(gate, FOUND)
    else:
        with pytest.raises(FidelityError, match=words):
            check(gate, FOUND)


@pytest.mark.parametrize("kind", ["classification", "segmentation", "detection"])
def test_scenes_are_like_scenes_and_unlike_blurred_ones(kind, tmp_path):
    """The same renderer with another seed; and what it makes of other knobs."""
    objects = (1, 1) if kind == "classification" else (1, 3)
    write, make = {
        "classification": (write_class_folder, vision_config),
        "segmentation": (write_mask_folder, segmentation_config),
        "detection": (write_coco, detection_config),
    }[kind]
    write(tmp_path / "data", Recipe(size=(32, 32), classes=CLASSES, objects=objects), {"train": 60, "val": 48})
    fields = FIELDS | (RESNET if kind == "classification" else {})
    good = fidelity_of(make(tmp_path / "data", tmp_path / "good", **fields, synthetic=gated()))
    knobs = {"texture": "0", "light": "0", "noise": "0", "blur": "8"}
    bad = fidelity_of(make(tmp_path / "data", tmp_path / "bad", **fields, synthetic=gated() | {"scenes": knobs}))
    assert float(good.auc) < 0.75 and 0 < float(good.trtr) <= 1 and 0 < float(good.tstr) <= 1
    if kind != "detection":  # a fresh SSDlite tells nothing apart
        assert float(good.kid) < 0.1 * float(bad.kid)
        assert float(good.auc) < float(bad.auc)


def test_scenes_do_not_pass_for_other_images_and_nothing_is_trained(tmp_path):
    """The folders have the right names, the images show something else: the job ends with an exit code of its own."""
    for split in ("train", "val"):
        for name, color in zip(CLASSES, ((40, 60, 220), (210, 40, 30)), strict=True):
            write_class(tmp_path / "data" / split / name, color, 24)
    config = vision_config(
        tmp_path / "data", tmp_path / "run", **FIELDS, **RESNET, synthetic=gated(maxAuc="0.9", minTstrRatio="0.8")
    )
    host = Host()
    with pytest.raises(
        FidelityError, match=r"too far from the real ones.*more than maxAuc 0.9.*minTstrRatio 0.8"
    ) as failed:
        train(config, make_task(config), host)
    assert failed.value.exit_code == ExitCode.FIDELITY_TOO_LOW == 79
    assert float(host.message.fidelity.trtr) > 0.95 and float(host.message.fidelity.auc) > 0.95
    assert host.message.step == 0
    assert Checkpoints(tmp_path / "run/checkpoints", keep=1).newest() is None


def sample(*rows: int) -> Sample:
    return Sample.of([torch.tensor([float(row)]) for row in rows], [torch.tensor([1.0])] * len(rows), [0] * len(rows))


@pytest.mark.parametrize(
    ("by_rank", "order"),
    [
        ([[sample(0, 1), sample(2)]], [0, 1, 2]),
        ([[sample(0, 2), sample(4)], [sample(1, 3), sample()]], [0, 1, 2, 3, 4]),
        ([[sample(0, 3)], [sample(1)], [sample(2)]], [0, 1, 2, 3]),
        ([[sample()], [sample(1, 3)]], [1, 3]),
    ],
)
def test_images_lie_as_in_one_process(by_rank, order):
    assert in_order(by_rank).images.flatten().tolist() == order


def test_two_processes_find_what_one_does_and_a_checkpoint_keeps_it(tmp_path):
    write_class_folder(
        tmp_path / "data", Recipe(size=(32, 32), classes=CLASSES, objects=(1, 1)), {"train": 40, "val": 40}
    )
    noisy((1, 2, 3)).save(tmp_path / "data/val/star/unlike.png")
    config = vision_config(tmp_path / "data", tmp_path / "run", **FIELDS, **RESNET, synthetic=gated())
    alone = fidelity_of(config)
    (end, _) = together(2, members.task_member, config)
    assert end["reason"] == "Completed"
    for name, value in alone.to_wire().items():
        assert float(end["message"]["fidelity"][name]) == pytest.approx(float(value), abs=1e-3)
    progress = Checkpoints(tmp_path / "run/checkpoints", keep=1).newest().counters()["progress"]
    assert progress["fidelity"] == end["message"]["fidelity"]
