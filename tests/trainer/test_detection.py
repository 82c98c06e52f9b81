"""The detection task: files, transforms, loss and metric; and that it learns, exports and predicts."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from darkroom_api.report import ExitCode
from darkroom_api.v1alpha1.augmentation import Augmentation, Crop
from darkroom_trainer import predict
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.data.frame import Views
from darkroom_trainer.errors import DataError
from darkroom_trainer.host import Host
from darkroom_trainer.parallel import Group
from darkroom_trainer.synthetic.scene import Recipe, render
from darkroom_trainer.synthetic.write import write_coco, write_voc
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import Batch, SampleRef
from darkroom_trainer.tasks.detection.data import Annotated
from darkroom_trainer.tasks.detection.precision import Judged, mean_average_precision
from darkroom_trainer.tasks.detection.sets import kept
from darkroom_trainer.train import train
from tests.trainer.images import one_thread
from tests.trainer.scenes import SMALL, detection_config

CPU = torch.device("cpu")
TINY = Recipe(size=(96, 80), classes=("circle", "star"), objects=(2, 2))


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_coco(tmp_path / "data", TINY, {"train": 6, "val": 4})
    return tmp_path / "data"


def task_for(folder: Path, **vision):
    return make_task(detection_config(folder, folder.parent / "run", **{"imageSize": 64, **vision}))


def batch_of(task, split: str = "train", epoch: int = 0) -> Batch:
    images = task.splits()[split]
    return task.collate([images[SampleRef(index, epoch)] for index in range(len(images))])


def test_learns_shapes_exports_and_draws(tmp_path, monkeypatch, capsys):
    """The whole way, with the bar of mAP 0.6 at IoU 0.5; about 35 s of one core."""
    monkeypatch.setenv("DARKROOM_CPU_LIMIT", "1")
    write_coco(tmp_path / "data", SMALL, {"train": 320, "val": 48})
    config = detection_config(tmp_path / "data", tmp_path / "run", schedule={"epochs": 4})
    message = train(config, make_task(config), Host(clock=Clock(now())))
    assert message.exit_code == ExitCode.DONE
    metrics = {metric.name: float(metric.value) for metric in message.metrics}
    assert metrics["val/map50"] > 0.6

    hits = 0
    for index in range(10):
        scene = render(replace(SMALL, objects=(1, 1)), seed=9, index=index)
        file = tmp_path / f"unseen/{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(scene.pixels).resize((256, 256)).save(file)
        capsys.readouterr()
        command = [
            str(tmp_path / "run/model"),
            str(file),
            "--json",
            "--min-score",
            "0",
            "--draw",
            str(tmp_path / "drawn"),
        ]
        assert predict.main(command) == ExitCode.DONE
        best = json.loads(capsys.readouterr().out)["predictions"][0]
        hits += overlap(best["box"], [2 * edge for edge in scene.things[0].box]) > 0.5
    assert hits >= 7
    assert len(list((tmp_path / "drawn").iterdir())) == 10

    assert predict.main([str(tmp_path / "run/model"), str(file), "--min-score", "0"]) == ExitCode.DONE
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header.split("\t") == ["file", "class", "score", "left", "top", "right", "bottom"]
    assert first.split("\t")[1] in SMALL.classes


def overlap(one, other) -> float:
    """Intersection over union of two boxes."""
    width, height = (min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in (0, 1))
    both = max(0.0, width) * max(0.0, height)
    return both / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - both)


def annotated(width: int, height: int, boxes, crowd=None) -> Annotated:
    rows = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    n = len(rows)
    areas = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    return Annotated(width, height, rows, np.arange(n), np.array(crowd or [False] * n), areas)


@pytest.mark.parametrize("crop", Crop)
@pytest.mark.parametrize("flip", ["0", "1"])
def test_boxes_go_with_their_pixels(crop, flip):
    """Of a white object on black, each box that is kept has the white pixels, and no other."""
    for seed in range(30):
        pixels = np.zeros((120, 200, 3), dtype=np.uint8)
        pixels[30:70, 50:110] = 255
        truth = annotated(200, 120, [[50, 30, 110, 70]])
        frame = Views(Augmentation(crop=crop, horizontal_flip=flip), 64).draw(200, 120, Random(seed))
        boxes, labels = kept(truth, frame)
        white = frame.picture(Image.fromarray(pixels), (0, 0, 0))[..., 0] > 127
        if not len(boxes):
            assert white.mean() < 0.5
            continue
        assert labels.tolist() == [0]
        rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
        found = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        np.testing.assert_allclose(found, boxes[0], atol=1.01)


def test_a_training_sample_keeps_an_object_where_there_is_one(data):
    task = task_for(data, augmentation={"crop": "RandomResized", "minScale": "0.05"})
    for epoch in range(20):
        for target in batch_of(task, epoch=epoch).targets:
            boxes = target["boxes"]
            assert len(boxes) == len(target["labels"]) >= 1
            assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
            assert boxes.min() >= 0 and boxes.max() <= 64


def test_crowds_are_not_learned():
    truth = annotated(64, 64, [[0, 0, 20, 20], [30, 30, 60, 60]], crowd=[True, False])
    frame = Views(Augmentation(crop=Crop.CENTER, horizontal_flip="0"), 64).draw(64, 64, Random(0))
    assert kept(truth, frame)[1].tolist() == [1]


def test_the_same_sample_looks_the_same_and_other_epochs_do_not(data):
    task = task_for(data, augmentation={"crop": "RandomResized"})
    first, again, other = batch_of(task), batch_of(task), batch_of(task, epoch=1)
    assert torch.equal(first.images, again.images)
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(first.targets, again.targets, strict=True))
    assert not torch.equal(first.images, other.images)


class Counting(nn.Module):
    """Losses that tell how many images there were."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, images, targets):
        assert len(images) == len(targets)
        return {"one": self.weight.sum() + 1.0, "two": self.weight.sum() + 0.5}


def test_loss_counts_the_images_that_could_be_read(data):
    for name in ("000001.png", "000004.png"):
        (data / "train" / name).write_bytes(b"\x89PNG")
    task = task_for(data)
    batch = batch_of(task)
    assert batch.corrupt == ["train/000001.png", "train/000004.png"]
    assert task.loss(Counting(), batch, generator=torch.Generator()).item() == pytest.approx(1.5 * 4)


def test_a_batch_of_damaged_images_teaches_nothing(data):
    for file in (data / "train").iterdir():
        file.write_bytes(b"\x89PNG")
    task, model = task_for(data), Counting()
    loss = task.loss(model, batch_of(task), generator=torch.Generator())
    loss.backward()
    assert loss == 0
    assert model.weight.grad.tolist() == [0, 0]


def test_batches_bear_lists_of_boxes(data):
    batch = batch_of(task_for(data)).to(CPU, torch.channels_last)
    assert [target["boxes"].shape[1] for target in batch.targets] == [4] * 6
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


# --- The metric ---


def judged(index: int, truth: Annotated, boxes, scores, labels) -> Judged:
    return Judged(index, truth, np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(scores), np.array(labels))


def test_precision_of_known_answers():
    truth = annotated(100, 100, [[0, 0, 40, 40], [50, 50, 90, 90]])
    perfect = judged(0, truth, truth.boxes, [0.9, 0.8], [0, 1])
    assert mean_average_precision([perfect], "ab") == {"map": 1.0, "map50": 1.0, "map75": 1.0, "recall": 1.0}
    # IoU of 40x40 with one moved by 10 is 1200/2000: found at 0.5, 0.55 and 0.6 of ten thresholds
    moved = judged(0, truth, truth.boxes + np.float32([10, 0, 10, 0]), [0.9, 0.8], [0, 1])
    assert mean_average_precision([moved], "ab") == pytest.approx({"map": 0.3, "map50": 1, "map75": 0, "recall": 0.3})
    wrong_class = judged(0, truth, truth.boxes, [0.9, 0.8], [1, 0])
    assert mean_average_precision([wrong_class], "ab")["map"] == 0.0
    half = judged(0, truth, truth.boxes[:1], [0.9], [0])
    assert mean_average_precision([half], "ab")["map"] == pytest.approx(0.5)
    assert mean_average_precision([judged(0, truth, [], [], [])], "ab")["map"] == 0.0
    assert mean_average_precision([], "ab")["map"] == 0.0


def test_what_is_found_in_a_crowd_counts_neither_way():
    truth = annotated(100, 100, [[0, 0, 40, 40], [50, 50, 90, 90]], crowd=[False, True])
    truth = replace(truth, labels=np.zeros(2, dtype=int))
    found = judged(0, truth, [[0, 0, 40, 40], [50, 50, 70, 70], [60, 60, 80, 80]], [0.5, 0.9, 0.8], [0, 0, 0])
    assert mean_average_precision([found], "ab")["map"] == 1.0


class Telling(nn.Module):
    """A detector that knows the truth, in the pixels of the canvas."""

    def __init__(self, targets: list[dict[str, Any]]):
        super().__init__()
        self.targets = targets

    def forward(self, images):
        assert len(images) == len(self.targets)
        return [
            {"boxes": t["boxes"], "labels": t["labels"], "scores": torch.full((len(t["boxes"]),), 0.9)}
            for t in self.targets
        ]


def test_answers_are_judged_in_the_pixels_of_the_image(data):
    task = task_for(data)
    batch = batch_of(task, "val")
    totals = task.new_totals(CPU)
    task.evaluate(Telling(batch.targets), batch, totals)
    assert task.metrics(task.merge(totals, Group())) == pytest.approx(
        {"map": 1.0, "map50": 1.0, "map75": 1.0, "recall": 1.0}
    )
    assert totals[0].boxes.max() > 64, "the scenes have 96 pixels, the canvas 64"


class Parts:
    """A group whose other members' totals are known."""

    def __init__(self, parts):
        self.parts = parts

    def gather(self, _):
        return self.parts


def test_totals_of_parts_merge_to_the_totals_of_the_whole(data):
    task = task_for(data)
    model, batch = task.build_model().eval(), batch_of(task, "val")
    whole, parts = task.new_totals(CPU), [task.new_totals(CPU) for _ in range(3)]
    task.evaluate(model, batch, whole)
    for rank, totals in enumerate(parts):
        task.evaluate(model, Batch(batch.images[rank::3], batch.targets[rank::3], batch.valid[rank::3], []), totals)
    merged = task.merge(parts[0], Parts(parts))
    assert [image.index for image in merged] == [0, 1, 2, 3]
    assert task.metrics(merged) == pytest.approx(task.metrics(whole), abs=1e-6)


# --- Files ---


def test_voc_and_coco_say_the_same(tmp_path, data):
    write_voc(tmp_path / "voc", TINY, {"train": 6, "val": 4})
    coco, voc = task_for(data), task_for(tmp_path / "voc", data={"claim": "x", "format": "Voc"})
    assert coco.images.classes == voc.images.classes == ("circle", "star")
    for split in ("train", "val"):
        for one, other in zip(coco.images.splits[split].items, voc.images.splits[split].items, strict=True):
            assert (one.boxes == other.boxes).all() and (one.labels == other.labels).all()


def test_folders_with_a_suffix_are_found(data):
    (data / "train").rename(data / "train2017")
    (data / "annotations/instances_train.json").rename(data / "annotations/instances_train2017.json")
    assert len(task_for(data).splits()["train"]) == 6


def test_fingerprint_follows_the_boxes(data):
    before = task_for(data).fingerprint()
    assert task_for(data, seed=5).fingerprint() == before
    change(data, lambda content: content["annotations"][0].update(bbox=[1, 1, 5, 5]))
    assert task_for(data).fingerprint() != before


def change(data: Path, edit, split: str = "train") -> None:
    path = data / f"annotations/instances_{split}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def first_box(**fields):
    return lambda data: change(data, lambda content: content["annotations"][0].update(fields))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            first_box(bbox=[90, 10, 20, 20]),
            r"instances_train\.json: annotation 1: the box of '\w+' in train/000000\.png, \[90, 10, 110, 30\], "
            "lies outside the image, which has 96x80 pixels",
            id="outside",
        ),
        pytest.param(first_box(bbox=[10, 10, 0, 20]), r"annotation 1: .*, has no area", id="no width"),
        pytest.param(first_box(bbox=[10, 10, 5, -2]), r"annotation 1: .*, has no area", id="upside down"),
        pytest.param(
            first_box(bbox=[95.5, 10, 1, 0.0]), r"annotation 1: .*, has no area", id="no height at the border"
        ),
        pytest.param(first_box(bbox=[96, 10, 0.5, 5]), r"has no area within the image", id="beside the border"),
        pytest.param(first_box(bbox=[1, 2, float("nan"), 3]), r"is not made of numbers", id="not a number"),
        pytest.param(first_box(bbox=[1, 2, 3]), r"annotation 1 needs .* a bbox of four numbers", id="three numbers"),
        pytest.param(first_box(bbox="x"), r"annotation 1 needs .* a bbox of four numbers", id="words"),
        pytest.param(
            first_box(category_id=9), r"annotation 1 is of class 9, which the file does not", id="unknown class"
        ),
        pytest.param(
            first_box(image_id=99), r"annotation 1 is of image 99, which the file does not", id="unknown image"
        ),
        pytest.param(
            lambda d: change(
                d,
                lambda c: (
                    c["categories"].append({"id": 7, "name": "ring"}),
                    c["annotations"][0].update(category_id=7),
                ),
                "val",
            ),
            r"val has boxes of classes that no image of train has: 'ring' \(.*instances_val\.json: annotation 1\)",
            id="a class that train lacks",
        ),
        pytest.param(
            lambda d: change(d, lambda c: c["annotations"].clear()), "no image of train has a box", id="no boxes at all"
        ),
        pytest.param(lambda d: change(d, lambda c: c.pop("images")), r"is no COCO file", id="no images"),
        pytest.param(
            lambda d: change(d, lambda c: c["images"][0].pop("width")),
            r"need id, file_name, width",
            id="no width given",
        ),
        pytest.param(
            lambda d: change(d, lambda c: c["images"][0].update(id=2)), "two images have the same id", id="an id twice"
        ),
        pytest.param(
            lambda d: (d / "annotations/instances_train.json").write_text("{"), r"train\.json is not JSON", id="cut off"
        ),
        pytest.param(
            lambda d: (d / "annotations/instances_val.json").unlink(), r"has no instances_val\*\.json", id="no val"
        ),
        pytest.param(
            lambda d: (d / "annotations/instances_train2.json").write_text("{}"),
            "several files for train",
            id="two files",
        ),
        pytest.param(
            lambda d: (d / "train").rename(d / "images"), r"data/train does not exist", id="no images' folder"
        ),
        pytest.param(
            lambda d: Image.new("RGB", (80, 96)).save(d / "train/000002.png"),
            r"train/000002\.png has 80x96 pixels, its annotation says 96x80",
            id="another size",
        ),
    ],
)
def test_data_that_cannot_be_used_is_named(data, spoil, message):
    spoil(data)
    with pytest.raises(DataError, match=message):
        batch_of(task_for(data))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmax>", "<xmax>9", r"train_000000\.xml: object 1: the box of .* lies outside the image"),
        ("<xmin>", "<xmin>x", r"train_000000\.xml: object 1: bndbox\.xmin is 'x\d+', not a number"),
        ("<name>", "<name></name><none>", r"train_000000\.xml is not XML|object 1 has no name"),
        ("<width>96", "<width>", r"train_000000\.xml: size\.width is .*, not a number"),
        ("<annotation>", "<annotation", r"train_000000\.xml is not XML"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "declares a document type or entities"),
    ],
)
def test_xml_that_cannot_be_used_is_named(tmp_path, old, new, message):
    write_voc(tmp_path / "voc", TINY, {"train": 2, "val": 1})
    path = tmp_path / "voc/Annotations/train_000000.xml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        task_for(tmp_path / "voc", data={"claim": "x", "format": "Voc"}).splits()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "ImageSets/Main/val.txt").unlink(), r"val\.txt does not exist"),
        (lambda d: (d / "ImageSets/Main/val.txt").write_text("\n"), r"val\.txt names no images"),
        (lambda d: (d / "ImageSets/Main/val.txt").write_text("a\na\n"), r"val\.txt names 'a' twice"),
        (lambda d: (d / "JPEGImages/train_000001.jpg").unlink(), "no image named 'train_000001'"),
        (lambda d: (d / "Annotations/train_000001.xml").unlink(), r"train_000001\.xml cannot be read: No such file"),
    ],
)
def test_a_voc_folder_that_is_not_whole_is_named(tmp_path, spoil, message):
    write_voc(tmp_path / "voc", TINY, {"train": 2, "val": 1})
    spoil(tmp_path / "voc")
    with pytest.raises(DataError, match=message):
        task_for(tmp_path / "voc", data={"claim": "x", "format": "Voc"}).splits()


def test_a_box_that_reaches_over_the_border_by_a_pixel_is_cut_off(data):
    first_box(bbox=[-0.5, 70, 20, 10.9])(data)
    item = task_for(data).images.splits["train"].items[0]
    assert item.boxes[0].tolist() == [0, 70, 19.5, 80]
