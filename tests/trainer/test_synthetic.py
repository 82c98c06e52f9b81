"""The renderer: what its labels say is what its pixels show, and a scene follows from its number."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from darkroom_trainer.synthetic.scene import Recipe, render
from darkroom_trainer.synthetic.shapes import CLASSES
from darkroom_trainer.synthetic.write import run_lengths, write_coco, write_mask_folder, write_voc
from tests.trainer.processes import together

RECIPE = Recipe(size=(96, 64))


def pixels_member(seed: int, indices: list[int]) -> list[bytes]:
    return [render(RECIPE, seed=seed, index=index).pixels.tobytes() for index in indices]


def test_a_scene_follows_from_its_seed_and_number_in_any_process():
    here = [render(RECIPE, seed=3, index=index).pixels.tobytes() for index in (0, 7, 10**6)]
    for there in together(2, pixels_member, 3, [0, 7, 10**6]):
        assert there == here
    assert len({*here, render(RECIPE, seed=4, index=0).pixels.tobytes()}) == 4


def test_objects_can_be_seen_where_the_labels_say():
    """Each differs from what lies around it, its box touches its outermost pixels, and no pixel is of two objects."""
    for index in range(40):
        scene = render(RECIPE, seed=0, index=index)
        assert scene.pixels.shape == (64, 96, 3)
        assert 1 <= len(scene.things) <= 3
        assert sum(thing.mask.astype(int) for thing in scene.things).max() == 1
        for thing in scene.things:
            left, top, right, bottom = thing.box
            assert thing.mask[top:bottom, left:right].sum() == thing.mask.sum()
            assert thing.mask[top].any() and thing.mask[bottom - 1].any()
            assert thing.mask[:, left].any() and thing.mask[:, right - 1].any()
            assert (scene.label_map()[thing.mask] == thing.label + 1).all()
    inside, around = [], []
    calm = replace(RECIPE, objects=(1, 1), noise=(0, 0))
    for index in range(20):
        scene = render(calm, seed=1, index=index)
        mask = scene.things[0].mask
        inside.append(scene.pixels[mask].mean(axis=0))
        around.append(scene.pixels[~mask].mean(axis=0))
    assert min(np.linalg.norm(np.array(inside) - np.array(around), axis=1)) > 40


def test_every_class_is_drawn_and_as_often():
    labels = [thing.label for index in range(150) for thing in render(RECIPE, seed=0, index=index).things]
    counts = np.bincount(labels, minlength=len(CLASSES))
    assert counts.min() > 0.5 * counts.mean()


def test_nothing_is_hidden_beyond_recognition():
    crowded = replace(RECIPE, objects=(6, 6), radius=(0.2, 0.3), classes=("circle",), tilt=0.0)
    shares = []
    for index in range(20):
        for thing in render(crowded, seed=0, index=index).things:
            left, top, right, bottom = thing.box
            shares.append(thing.mask.sum() / max((right - left), (bottom - top)) ** 2)
    assert min(shares) > 0.6 * np.pi / 4 * 0.6


def test_unknown_shapes_are_named():
    with pytest.raises(ValueError, match="no shapes named blob"):
        Recipe(classes=("blob", "circle"))


@pytest.mark.parametrize("fill", [[], [0], [5], [0, 1, 2], [3, 4, 11], list(range(12))])
def test_run_lengths_are_cocos(fill):
    mask = np.zeros(12, dtype=bool)
    mask[fill] = True
    mask = mask.reshape(3, 4, order="F")
    counts = run_lengths(mask)
    assert sum(counts) == 12
    encoded = coco_mask.frPyObjects({"size": [3, 4], "counts": counts}, 3, 4)
    assert (coco_mask.decode(encoded).astype(bool) == mask).all()


def test_files_say_what_the_scenes_are(tmp_path):
    counts = {"train": 3, "val": 2}
    for name, write in (("masks", write_mask_folder), ("coco", write_coco), ("voc", write_voc)):
        write(tmp_path / name, RECIPE, counts, seed=5)
    first, other = render(RECIPE, seed=5, index=0), render(RECIPE, seed=5, index=1_000_000)

    assert (np.asarray(Image.open(tmp_path / "masks/train/images/000000.png")) == first.pixels).all()
    assert (np.asarray(Image.open(tmp_path / "masks/val/masks/000000.png")) == other.label_map()).all()
    assert (tmp_path / "masks/classes.txt").read_text().splitlines() == ["background", *CLASSES]

    content = json.loads((tmp_path / "coco/annotations/instances_val.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["000000.png", "000001.png"]
    boxes = [a["bbox"] for a in content["annotations"] if a["image_id"] == 1]
    assert boxes == [[x, y, r - x, b - y] for x, y, r, b in (thing.box for thing in other.things)]

    xml = ElementTree.parse(tmp_path / "voc/Annotations/val_000000.xml").getroot()  # noqa: S314 - our own
    assert [item.findtext("name") for item in xml.iter("object")] == [CLASSES[t.label] for t in other.things]
    assert (tmp_path / "voc/ImageSets/Main/train.txt").read_text().split() == [f"train_00000{n}" for n in range(3)]
