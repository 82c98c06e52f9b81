"""The segmentation task: files, transforms, loss and metric; and that it learns, exports and predicts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from darkroom_api.report import ExitCode
from darkroom_trainer import predict
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.errors import DataError
from darkroom_trainer.host import Host
from darkroom_trainer.synthetic.scene import Recipe, render
from darkroom_trainer.synthetic.write import write_mask_folder, write_voc
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import Batch, SampleRef
from darkroom_trainer.tasks.segmentation.task import AUXILIARY
from darkroom_trainer.train import train
from tests.trainer.images import one_thread
from tests.trainer.scenes import LARGE, segmentation_config

CPU = torch.device("cpu")
TINY = Recipe(size=(48, 40), classes=("circle", "star"))


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_mask_folder(tmp_path / "data", TINY, {"train": 6, "val": 4})
    return tmp_path / "data"


def task_for(folder: Path, **vision):
    return make_task(segmentation_config(folder, folder.parent / "run", **{"imageSize": 32, **vision}))


def batch_of(task, split: str = "train", epoch: int = 0) -> Batch:
    images = task.splits()[split]
    return task.collate([images[SampleRef(index, epoch)] for index in range(len(images))])


class Fixed(nn.Module):
    """A network that answers what it was told."""

    def __init__(self, **outputs: torch.Tensor):
        super().__init__()
        self.outputs = outputs

    def forward(self, _):
        return self.outputs


def test_learns_shapes_exports_and_draws(tmp_path, monkeypatch, capsys):
    """The whole way, with the bar of mIoU 0.7; about 40 s of one core."""
    monkeypatch.setenv("DARKROOM_CPU_LIMIT", "1")
    write_mask_folder(tmp_path / "data", LARGE, {"train": 480, "val": 48})
    config = segmentation_config(tmp_path / "data", tmp_path / "run", schedule={"epochs": 7})
    message = train(config, make_task(config), Host(clock=Clock(now())))
    assert message.exit_code == ExitCode.DONE
    metrics = {metric.name: float(metric.value) for metric in message.metrics}
    assert metrics["val/miou"] > 0.7

    unseen = render(LARGE, seed=9, index=0)
    Image.fromarray(unseen.pixels).resize((100, 80)).save(tmp_path / "unseen.png")
    capsys.readouterr()
    model = str(tmp_path / "run/model")
    command = [model, str(tmp_path / "unseen.png"), "--json", "--draw", str(tmp_path / "drawn")]
    assert predict.main(command) == ExitCode.DONE
    answer = json.loads(capsys.readouterr().out)
    assert sum(entry["share"] for entry in answer["predictions"]) == pytest.approx(1)
    named = str(tmp_path / "unseen").strip("/").replace("/", "_")
    with Image.open(tmp_path / f"drawn/{named}-mask.png") as mask:
        assert (mask.mode, mask.size) == ("P", (100, 80))
        found = np.asarray(mask)
    truth = np.asarray(Image.fromarray(unseen.label_map()).resize((100, 80), Image.Resampling.NEAREST))
    assert (found == truth).mean() > 0.8
    with Image.open(tmp_path / f"drawn/{named}.png") as drawn:
        assert drawn.size == (100, 80)


def test_masks_go_with_their_images(data):
    """Colour a scene by its mask: after any augmentation, the colour of a pixel still tells its class."""
    for path in sorted((data / "train/masks").iterdir()):
        labels = np.asarray(Image.open(path))
        pixels = np.stack([labels * 100, labels * 0, labels * 0 + 50], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(data / "train/images" / path.name)
    for crop in ("RandomResized", "RandomPad", "Center"):
        task = task_for(data, augmentation={"crop": crop, "erasing": "0.5"}, normalization={"mean": ["0", "0", "1"]})
        for epoch in range(4):
            batch = batch_of(task, epoch=epoch)
            red, blue, labels = batch.images[:, 0].int(), batch.images[:, 2].int(), batch.targets.int()
            ignored = labels == 255
            wrong = ((red - labels * 100).abs() > 55) & ~ignored
            assert wrong.float().mean() < 0.02, "but for the edges, where the picture is interpolated"
            assert (blue[ignored] > 150).all()


def test_the_same_sample_looks_the_same_and_other_epochs_do_not(data):
    task = task_for(data, augmentation={"crop": "RandomResized", "erasing": "1"})
    first, again, other = batch_of(task), batch_of(task), batch_of(task, epoch=1)
    assert torch.equal(first.images, again.images) and torch.equal(first.targets, again.targets)
    assert not torch.equal(first.targets, other.targets)


def test_loss_is_the_mean_over_labelled_pixels_summed_over_valid_images(data):
    task = task_for(data, schedule={"labelSmoothing": "0.1"})
    batch = batch_of(task)
    batch.targets[0, :16] = 255
    batch.valid[1] = 0
    logits, auxiliary = torch.randn(2, len(batch.valid), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = sum(
        functional.cross_entropy(
            part[n : n + 1], batch.targets[n : n + 1].long(), ignore_index=255, label_smoothing=0.1
        )
        * weight
        for part, weight in ((logits, 1.0), (auxiliary, AUXILIARY))
        for n in range(len(batch.valid))
        if n != 1
    )
    model = Fixed(out=logits, aux=auxiliary.requires_grad_())
    torch.testing.assert_close(task.loss(model, batch, generator=torch.Generator()), expected)
    frozen = Fixed(out=logits, aux=auxiliary.detach())
    assert task.loss(frozen, batch, generator=torch.Generator()) < expected


def test_metrics_of_known_answers(data):
    task = task_for(data)
    targets = torch.full((2, 32, 32), 255, dtype=torch.uint8)
    targets[0, 0, :8] = torch.tensor([0, 0, 0, 0, 1, 1, 1, 255])
    targets[1, 0, :8] = 2  # of an image that could not be read
    answers = torch.zeros(2, 32, 32, dtype=torch.int64)
    answers[0, 0, :8] = torch.tensor([0, 0, 0, 1, 1, 1, 0, 2])
    logits = functional.one_hot(answers, 3).permute(0, 3, 1, 2).float()
    batch = Batch(torch.zeros(2, 3, 32, 32), targets, torch.tensor([1.0, 0.0]), ["x.png"])
    totals = task.new_totals(CPU)
    task.evaluate(Fixed(out=logits), batch, totals)
    metrics = task.metrics(totals)
    assert metrics["miou"] == pytest.approx((3 / 5 + 2 / 4) / 2), "the class that is nowhere is left out"
    assert metrics["pixelAccuracy"] == pytest.approx(5 / 7)
    whole = functional.cross_entropy(logits[:1], targets[:1].long(), ignore_index=255)
    assert metrics["loss"] == pytest.approx(float(whole))


def test_totals_of_parts_sum_to_the_totals_of_the_whole_exactly(data):
    task = task_for(data)
    model, batch = task.build_model().eval(), batch_of(task, "val")
    whole, parts = task.new_totals(CPU), [task.new_totals(CPU) for _ in range(3)]
    task.evaluate(model, batch, whole)
    for rank, totals in enumerate(parts):
        task.evaluate(model, Batch(batch.images[rank::3], batch.targets[rank::3], batch.valid[rank::3], []), totals)
    assert torch.equal(sum(parts)[1:], whole[1:]), "whole numbers"
    torch.testing.assert_close(sum(parts)[0], whole[0])
    assert task.metrics(task.new_totals(CPU)) == {"miou": 0.0, "pixelAccuracy": 0.0, "loss": 0.0}


def test_voc_is_read_by_its_lists(tmp_path):
    write_voc(tmp_path / "voc", TINY, {"train": 5, "val": 2, "test": 1})
    task = task_for(tmp_path / "voc", data={"claim": "x", "format": "Voc"})
    assert {name: len(images) for name, images in task.splits().items()} == {"train": 5, "val": 2, "test": 1}
    expected = render(TINY, seed=0, index=0).label_map()
    (tmp_path / "voc/classes.txt").unlink()
    assert len(task_for(tmp_path / "voc", data={"claim": "x", "format": "Voc"}).images.classes) == 21
    found = batch_of(task_for(tmp_path / "voc", data={"claim": "x", "format": "Voc"}, imageSize=48)).targets[0, 4:44]
    assert (found.numpy() == expected).all()


def test_a_folder_is_divided_once_for_all(tmp_path):
    write_mask_folder(tmp_path / "scenes", TINY, {"train": 10})
    for name in ("images", "masks"):
        (tmp_path / "scenes/train" / name).rename(tmp_path / "scenes" / name)
    (tmp_path / "scenes/train").rmdir()
    task = task_for(tmp_path / "scenes")
    assert {name: len(images) for name, images in task.splits().items()} == {"train": 8, "val": 1, "test": 1}
    names = [pairs.images[index] for pairs in task.images.splits.values() for index in range(len(pairs))]
    assert len(set(names)) == 10
    assert all(
        Path(pairs.images[i]).stem == Path(pairs.masks[i]).stem
        for pairs in task.images.splits.values()
        for i in range(len(pairs))
    )


def test_fingerprint_follows_names_and_classes(data):
    before = task_for(data).fingerprint()
    assert task_for(data, seed=5).fingerprint() == before
    (data / "classes.txt").write_text("background\ndisc\nstar\n")
    assert task_for(data).fingerprint() != before


MASK = "train/masks/000003.png"
IMAGE = "train/images/000003.png"


def _save_mask(data: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(data / MASK)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda d: (d / "classes.txt").unlink(), r"classes\.txt does not exist", id="no classes"),
        pytest.param(
            lambda d: (d / "classes.txt").write_text("a\n\nb\n"), r"classes\.txt: line 2 is empty", id="empty line"
        ),
        pytest.param(
            lambda d: (d / "classes.txt").write_text("a\na\n"), r"classes\.txt names 'a' twice", id="class twice"
        ),
        pytest.param(lambda d: (d / "classes.txt").write_text("a\n"), r"names 1 class\(es\)", id="one class"),
        pytest.param(lambda d: (d / MASK).unlink(), r"train/images/000003\.png has no mask", id="no mask"),
        pytest.param(lambda d: (d / "val").rename(d / "valid"), "none named `val`", id="no val"),
        pytest.param(
            lambda d: (d / "train/images/000003.jpg").write_bytes(b""), "two files named 000003", id="two images"
        ),
        pytest.param(
            lambda d: _save_mask(d, np.full((40, 48), 7)),
            r"000003\.png has pixels of value 7, but there are 3 classes, 0 to 2; 255 is ignored",
            id="unknown value",
        ),
        pytest.param(
            lambda d: _save_mask(d, np.zeros((40, 40))),
            r"000003\.png has 40x40 pixels, its image has 48x40",
            id="another size",
        ),
        pytest.param(
            lambda d: _save_mask(d, np.zeros((40, 48, 3))), r"000003\.png is a mask of mode RGB", id="coloured"
        ),
    ],
)
def test_data_that_cannot_be_used_is_named(data, spoil, message):
    spoil(data)
    with pytest.raises(DataError, match=message):
        batch_of(task_for(data))


@pytest.mark.parametrize("name", [MASK, IMAGE])
def test_a_truncated_file_is_left_out_and_named(data, name):
    path = data / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    task = task_for(data)
    batch = batch_of(task)
    assert batch.corrupt == [name]
    assert batch.valid.tolist() == [1, 1, 1, 0, 1, 1]
    loss = task.loss(task.build_model(), batch, generator=torch.Generator())
    assert torch.isfinite(loss)


def test_images_of_any_size_make_one_batch(data):
    for index, size in enumerate(((200, 20), (20, 200), (33, 33))):
        Image.new("RGB", size).save(data / f"train/images/00000{index}.png")
        Image.new("L", size).save(data / f"train/masks/00000{index}.png")
    for split in ("train", "val"):
        assert batch_of(task_for(data), split).images.shape[1:] == (3, 32, 32)
