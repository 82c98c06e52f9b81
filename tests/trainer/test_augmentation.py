"""Rotation, shift, scale, colour and copy-paste: torchvision's geometry and colours, and labels that go with the pixels."""

import json
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as theirs

from darkroom_api.v1alpha1.augmentation import Augmentation, Color, Crop
from darkroom_trainer.data.affine import Affine, draw_affine
from darkroom_trainer.data.color import OPERATIONS, jitter
from darkroom_trainer.data.frame import FILL_LABEL, Views
from darkroom_trainer.data.transforms import Preprocessing, Training
from darkroom_trainer.errors import DataError
from darkroom_trainer.synthetic.scene import Recipe
from darkroom_trainer.synthetic.write import write_coco, write_mask_folder
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import SampleRef
from darkroom_trainer.tasks.detection.coco import read_coco
from darkroom_trainer.tasks.detection.paste import decoded, number_map
from darkroom_trainer.tasks.segmentation.sets import Item, pasted
from tests.trainer.images import noisy
from tests.trainer.scenes import detection_config, segmentation_config

SIZE = 64
AFFINES = st.builds(
    Affine,
    angle=st.floats(-180, 180),
    shift=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    scale=st.floats(0.5, 1.5),
    size=st.just(SIZE),
)
ARGUMENTS = [(0, (0, 0), 1.0), (30, (0, 0), 1.0), (-75, (5, -9), 0.7), (180, (0, 3), 1.4), (0, (12, 7), 1.0)]


# --- Geometry ---


@pytest.mark.parametrize(("angle", "shift", "scale"), ARGUMENTS)
def test_pixels_and_masks_go_where_torchvisions_go(angle, shift, scale):
    image, affine = noisy((120, 60, 200), size=(SIZE, SIZE)), Affine(angle, shift, scale, SIZE)
    options = {"angle": angle, "translate": list(shift), "scale": scale, "shear": [0.0, 0.0]}
    expected = theirs.affine(image, **options, interpolation=v2.InterpolationMode.BILINEAR, fill=[1, 2, 3])
    ours = affine.picture(np.asarray(image), (1, 2, 3))
    assert np.abs(ours.astype(int) - np.asarray(expected)).max() <= 1  # of 255: cosines of 180 degrees are rounded
    mask = np.random.default_rng(0).integers(0, 5, (SIZE, SIZE), dtype=np.uint8)
    expected = theirs.affine(Image.fromarray(mask), **options, fill=FILL_LABEL)
    assert (affine.labels(mask, FILL_LABEL) == np.asarray(expected)).mean() > 0.99


@pytest.mark.parametrize(("angle", "shift", "scale"), ARGUMENTS)
def test_boxes_go_where_torchvisions_go(angle, shift, scale):
    boxes = np.array([[24, 20, 40, 44], [30, 30, 34, 31]], dtype=np.float32)
    told = tv_tensors.BoundingBoxes(
        torch.from_numpy(boxes), format="XYXY", canvas_size=(SIZE, SIZE), clamping_mode=None
    )
    expected = theirs.affine(told, angle=angle, translate=list(shift), scale=scale, shear=[0.0, 0.0])
    np.testing.assert_allclose(Affine(angle, shift, scale, SIZE).boxes(boxes), expected.numpy(), atol=1e-3)


@given(AFFINES, st.integers(0, 10**6))
def test_what_can_be_seen_of_an_object_lies_in_its_box(affine, seed):
    random = Random(seed)
    left, top = random.randrange(40), random.randrange(40)
    right, bottom = left + random.randrange(4, 20), top + random.randrange(4, 20)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    box = affine.boxes(np.array([[left, top, right, bottom]], dtype=np.float32))[0]
    rows, columns = np.nonzero(affine.labels(mask, 0))
    if len(rows):
        assert columns.min() >= box[0] - 0.51 and columns.max() + 1 <= box[2] + 0.51
        assert rows.min() >= box[1] - 0.51 and rows.max() + 1 <= box[3] + 0.51


def test_draws_reach_their_bounds_and_no_further():
    augmentation = Augmentation(rotation="20", translation="0.25", scaling="0.5")
    drawn = [draw_affine(augmentation, SIZE, Random(seed)) for seed in range(500)]
    for values, low, high in (
        ([affine.angle for affine in drawn], -20, 20),
        ([affine.shift[1] for affine in drawn], -16, 16),
        ([affine.scale for affine in drawn], 0.5, 1.5),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high >= max(values) > high - 0.05 * (high - low)
    random = Random(0)
    assert draw_affine(Augmentation(), SIZE, random) is None
    assert random.random() == Random(0).random(), "off costs no draw"


def test_a_frame_moves_masks_and_boxes_with_its_pixels():
    """A white square under rotation and shift: box and mask are where it is seen; what leaves the canvas has no box."""
    augmentation = Augmentation(crop=Crop.CENTER, horizontal_flip="0.5", rotation="45", translation="0.5")
    pixels = np.zeros((80, 120, 3), dtype=np.uint8)
    pixels[20:50, 60:90] = 255
    gone = 0
    for seed in range(60):
        frame = Views(augmentation, SIZE).draw(120, 80, Random(seed))
        picture = frame.picture(Image.fromarray(pixels), (0, 0, 0))[..., 0] > 127
        assert (picture == (frame.labels(Image.fromarray(pixels[..., 0] // 255)) == 1)).mean() > 0.98
        (box,), (shown,) = frame.shown(np.array([[60, 20, 90, 50]], dtype=np.float32))
        rows, columns = np.nonzero(picture)
        if shown:
            assert box[0] - 1 <= columns.min() and columns.max() + 1 <= box[2] + 1
            assert box[1] - 1 <= rows.min() and rows.max() + 1 <= box[3] + 1
        else:
            gone += 1
    assert 0 < gone < 60


# --- Colour ---


@pytest.mark.parametrize("amount", [0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("name", OPERATIONS)
def test_colours_are_torchvisions(name, amount):
    image = noisy((120, 60, 200), size=(33, 31))
    amount = (amount - 1) / 2 if name == "hue" else amount
    expected = getattr(theirs, f"adjust_{name}")(image, amount)
    assert (np.asarray(OPERATIONS[name](image, amount)) == np.asarray(expected)).all()


def test_jitter_draws_all_it_is_told_to():
    image = noisy((120, 60, 200), size=(8, 8))
    assert jitter(image, Color(brightness="0", contrast="0", saturation="0"), Random(0)).tobytes() == image.tobytes()
    seen = {jitter(image, Color(hue="0.1"), Random(seed)).tobytes() for seed in range(50)}
    assert len(seen) == 50


def test_classification_has_them_too():
    preprocessing = Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    image = noisy((120, 60, 200), size=(32, 32))
    for fields in ({"rotation": "30"}, {"translation": "0.3"}, {"scaling": "0.3"}, {"color": Color()}):
        plain = Training(Augmentation(crop=Crop.CENTER, horizontal_flip="0"), preprocessing)(image, Random(1))
        changed = Training(Augmentation(crop=Crop.CENTER, horizontal_flip="0", **fields), preprocessing)
        assert (changed(image, Random(1)) != plain).any(), fields
        assert (changed(image, Random(1)) == changed(image, Random(1))).all()


# --- Copy-paste ---


def test_pasted_classes_bring_their_pixels():
    below = Item(np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((4, 4), dtype=np.uint8))
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 255, 255]], dtype=np.uint8)
    above = Item(np.full((4, 4, 3), 9, dtype=np.uint8), labels)
    found = set()
    for seed in range(40):
        item = pasted(below, above, Random(seed))
        assert ((item.pixels[..., 0] == 9) == (item.labels > 0)).all()
        found.add(tuple(np.unique(item.labels)))
    assert found == {(0, 1), (0, 2), (0, 1, 2)}
    assert (pasted(below, below, Random(0)).labels == 0).all()


def test_objects_are_pasted_into_scenes_for_masks(tmp_path):
    write_mask_folder(tmp_path, Recipe(size=(64, 64), objects=(1, 1)), {"train": 12, "val": 2})
    task = make_task(segmentation_config(tmp_path, tmp_path, augmentation={"crop": "Center", "copyPaste": "1"}))
    train = task.splits()["train"]
    classes = [len(np.unique(train[SampleRef(index, epoch)].labels)) - 1 for index in range(12) for epoch in range(3)]
    assert {1, 2} == set(classes)
    assert (train[SampleRef(3, 1)].pixels == train[SampleRef(3, 1)].pixels).all()
    val = task.splits()["val"][SampleRef(0, 0)]
    assert len(np.unique(val.labels)) == 2


def test_objects_are_pasted_into_scenes_for_boxes(tmp_path):
    """Boxes are those of the masks that can be seen: found again by the colours of flat objects."""
    recipe = Recipe(size=(64, 64), objects=(1, 2), texture=0, light=0, noise=(0, 0), blur=(0, 0))
    write_coco(tmp_path, recipe, {"train": 10, "val": 2}, seed=4)
    augmentation = {"crop": "Center", "copyPaste": "1", "rotation": "20"}
    task = make_task(detection_config(tmp_path, tmp_path, imageSize=64, augmentation=augmentation))
    more = 0
    for index in range(10):
        item = task.splits()["train"][SampleRef(index, 0)]
        own = len(task.images.splits["train"].items[index].labels)
        boxes, labels = item.target.boxes, item.target.labels
        more += len(boxes) > own
        assert len(boxes) == len(labels) > 0
        assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= 64
    assert more > 3


def test_hidden_objects_lose_their_boxes_and_covered_ones_shrink(tmp_path):
    content = {
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "images": [{"id": n, "file_name": f"{n}.png", "width": 32, "height": 32} for n in (1, 2)],
        "annotations": [
            square(1, 1, 1, (2, 2, 10, 10)),  # hidden
            square(2, 1, 1, (2, 16, 20, 26)),  # half of it is
            square(3, 2, 2, (0, 0, 11, 31)),
        ],
    }
    task = pasting_task(tmp_path, content)
    train, seen = task.splits()["train"], set()
    for epoch in range(30):
        target = train[SampleRef(0, epoch)].target
        seen.add(tuple(sorted((int(n), *map(int, box)) for n, box in zip(target.labels, target.boxes, strict=True))))
    own, other = ((0, 2, 2, 10, 10), (0, 2, 16, 20, 26)), ((0, 11, 16, 20, 26), (1, 0, 0, 11, 31))
    assert seen == {own, other}, "its own objects pasted over themselves, or the other image's"


def square(number: int, image: int, category: int, box: tuple[int, int, int, int]) -> dict:
    left, top, right, bottom = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [left, top, right - left, bottom - top],
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
    }


def pasting_task(folder, content):
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        (folder / split).mkdir()
        for image in content["images"]:
            noisy((9, 90, 200), size=(32, 32)).save(folder / split / image["file_name"])
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    augmentation = {"crop": "Center", "horizontalFlip": "0", "copyPaste": "1"}
    return make_task(detection_config(folder, folder, imageSize=32, augmentation=augmentation))


def test_masks_of_all_of_cocos_kinds_are_read():
    mask = np.zeros((6, 8), dtype=bool)
    mask[2:5, 3:7] = True
    polygons = [[3, 2, 7, 2, 7, 5, 3, 5]]
    runs = {"size": [6, 8], "counts": [20, 3, 3, 3, 3, 3, 3, 3, 7]}
    for segment in (polygons, runs, {"size": [6, 8], "counts": packed(mask)}):
        assert (decoded(segment, 8, 6) == mask).all(), segment


def packed(mask: np.ndarray) -> bytes:
    from faster_coco_eval.core import mask as coco_mask

    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_an_annotation_without_a_mask_is_named(tmp_path):
    write_coco(tmp_path, Recipe(size=(32, 32), classes=("star",)), {"train": 2, "val": 1})
    file = tmp_path / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = []
    file.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"instances_train.json: annotation 1 has no segmentation, which augmentation.copy"
    ):
        read_coco(tmp_path, masks=True)
    assert read_coco(tmp_path).splits["train"].items[0].segments is None


def test_crowds_are_not_cut_out(tmp_path):
    write_coco(tmp_path, Recipe(size=(32, 32), classes=("star",), objects=(1, 1)), {"train": 1, "val": 1})
    file = tmp_path / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"].append({**content["annotations"][0], "id": 9, "iscrowd": 1, "segmentation": []})
    file.write_text(json.dumps(content))
    truth = read_coco(tmp_path, masks=True).splits["train"].items[0]
    assert set(np.unique(np.asarray(number_map(truth)))) == {0, 1}
