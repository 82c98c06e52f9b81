"""Rendered scenes as training images: classes by name, the same pixels anywhere, real images where it is measured."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from darkroom_api.v1alpha1.synthetic import Scenes
from darkroom_trainer.data.synthetic import Blended, matched, recipe_of
from darkroom_trainer.errors import DataError
from darkroom_trainer.synthetic.scene import Recipe, render
from darkroom_trainer.synthetic.write import write_class_folder, write_coco, write_mask_folder
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import SampleRef
from tests.trainer import members
from tests.trainer.images import vision_config
from tests.trainer.processes import together
from tests.trainer.scenes import detection_config, segmentation_config
from tests.trainer.test_resume import assert_same

TINY = Recipe(size=(64, 64), classes=("star", "circle"))
GENTLE = {
    "imageSize": 64,
    "batchSize": 8,
    "microBatchSize": 4,
    "optimizer": {"learningRate": "0.001", "clipNorm": "1"},
    "schedule": {"epochs": 2, "warmupEpochs": "0"},
    "synthetic": {"source": "Scenes"},
}
WRITERS = {"classification": write_class_folder, "segmentation": write_mask_folder, "detection": write_coco}
CONFIGS = {"classification": vision_config, "segmentation": segmentation_config, "detection": detection_config}


@pytest.fixture(scope="module", params=sorted(WRITERS))
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def data(kind, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    WRITERS[kind](folder, TINY, {"train": 24, "val": 8})
    return folder


def config_of(kind: str, data: Path, run: Path, **vision):
    model = {"model": {"architecture": "resnet18"}} if kind == "classification" else {}
    return CONFIGS[kind](data, run, **{**GENTLE, **model, **vision})


def item_of(task, ref):
    batch = task.collate([task.splits()["train"][ref]])
    targets = batch.targets
    if isinstance(targets, list):
        targets = [targets[0]["boxes"], targets[0]["labels"]]
    return batch.images, targets


def sample_member(config, number: int):
    images, targets = item_of(make_task(config), SampleRef(number, 0, synthetic=True))
    return images.numpy().copy(), [t.numpy().copy() for t in (targets if isinstance(targets, list) else [targets])]


def test_a_number_gives_the_same_pixels_and_labels_in_any_process(kind, data, tmp_path):
    config = config_of(kind, data, tmp_path)
    here = sample_member(config, 10**9)
    for there in together(2, sample_member, config, 10**9):
        np.testing.assert_equal(there, here)
    other = config_of(kind, data, tmp_path, seed=1)
    assert (sample_member(other, 10**9)[0] != here[0]).any()


def test_loader_processes_see_the_same(kind, data, tmp_path):
    """They get a copy of the split."""
    task = make_task(config_of(kind, data, tmp_path))
    train, ref = task.splits()["train"], SampleRef(5, 0, synthetic=True)
    np.testing.assert_equal(pickle.loads(pickle.dumps(train))[ref].pixels, train[ref].pixels)  # noqa: S301 - our own


def test_only_training_is_synthetic(kind, data, tmp_path):
    splits = make_task(config_of(kind, data, tmp_path)).splits()
    assert {name for name, images in splits.items() if isinstance(images, Blended)} == {"train"}
    assert len(splits["train"]) == 24


def test_labels_are_those_of_the_data_set(kind, data, tmp_path):
    """The data set numbers its classes in another order than the renderer: the shape decides."""
    task = make_task(config_of(kind, data, tmp_path, augmentation={"crop": "Center", "horizontalFlip": "0"}))
    names = {"classification": lambda: task.folder.classes}.get(kind, lambda: task.images.classes)()
    synthetic = task.splits()["train"].synthetic
    for number in range(12):
        scene = synthetic._render(number)
        shapes = [synthetic._render._recipe.classes[thing.label] for thing in scene.things]
        _, targets = item_of(task, SampleRef(number, 0, synthetic=True))
        if kind == "classification":
            assert [names[targets[0]]] == shapes
        elif kind == "segmentation":
            values = {names[value] for value in targets.unique().tolist()}
            assert values == {"background", *shapes}
            assert ((targets[0].numpy() > 0) == sum(t.mask for t in scene.things)).mean() > 0.999
        else:
            assert [names[label - 1] for label in targets[1].tolist()] == shapes
            np.testing.assert_allclose(targets[0].numpy(), [thing.box for thing in scene.things], atol=0.01)


def test_interrupted_and_continued_on_another_world_equals_uninterrupted(kind, data, tmp_path):
    fields = {"ema": {}, "synthetic": {"source": "Scenes", "ratio": "0.6", "schedule": "Anneal"}}
    whole, parts = (config_of(kind, data, tmp_path / name, **fields) for name in ("whole", "parts"))
    (end, _) = together(2, members.task_member, whole)
    assert end["reason"] == "Completed"
    ended = together(2, members.task_member, parts, 2)
    assert {e["reason"] for e in ended} == {"AskedToLeave"}
    (last,) = together(1, members.task_member, parts)
    assert last["message"]["resumedStep"] == ended[0]["step"]
    assert_same(members.newest(tmp_path / "whole"), members.newest(tmp_path / "parts"), within=1e-4)


# --- Classes and recipes ---


@pytest.mark.parametrize(
    ("wanted", "classes", "words"),
    [
        (None, ["circle", "dog"], "there is no shape for 'dog', there are circle, .*name those to render in"),
        (["dog"], ["circle", "dog"], "there is no shape for 'dog', there are circle"),
        (["star"], ["circle"], "the data set has no class 'star', it has 'circle'"),
    ],
)
def test_classes_that_do_not_go_together_are_named(wanted, classes, words):
    with pytest.raises(DataError, match=words):
        matched(wanted, classes)


def test_some_of_the_classes_may_be_rendered():
    assert matched(["star"], ["dog", "star"]) == ["star"]
    assert matched(None, ["star", "circle"]) == ["star", "circle"]


def test_masks_need_a_background(tmp_path):
    write_mask_folder(tmp_path, TINY, {"train": 2, "val": 1})
    (tmp_path / "classes.txt").write_text("floor\nstar\ncircle\n")
    with pytest.raises(DataError, match="no class 'background'"):
        make_task(segmentation_config(tmp_path, tmp_path, synthetic={"source": "Scenes"})).splits()


def test_each_knob_reaches_the_pixels():
    def scene(**fields):
        scenes = Scenes.model_validate({"blur": "0", "noise": "0", "maxObjects": 1, **fields}, strict=False)
        return render(recipe_of(scenes, ("square",), size=64, alone=False), seed=0, index=5)

    colors = [len(np.unique(scene(texture="0", light=light).pixels.reshape(-1, 3), axis=0)) for light in ("0", "1")]
    assert colors[0] < 30 < colors[1]  # two colours and an edge; and all that light makes of them
    plain = scene().pixels.astype(float)
    for changed in ({"texture": "0.2"}, {"light": "0.2"}, {"blur": "3"}, {"noise": "40"}, {"perspective": "0"}):
        assert (scene(**changed).pixels != plain).any(), changed
    assert len(scene(minObjects=4, maxObjects=4, maxSize="0.3").things) == 4
    areas = [scene(minSize=size, maxSize=size).things[0].mask.sum() for size in ("0.2", "0.4", "0.8")]
    assert areas == sorted(areas) and areas[2] > 8 * areas[0]
    crowd = {"minObjects": 8, "maxObjects": 8, "minSize": "0.5"}
    assert len(scene(**crowd, occlusion="0.9").things) > len(scene(**crowd, occlusion="0").things)
