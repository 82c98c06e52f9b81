"""Crops, flips, RandAugment and erasing: geometry, statistics, and the operations against torchvision's own."""

from collections import Counter
from itertools import product
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from darkroom_api.v1alpha1.augmentation import Augmentation, Crop, RandAugment
from darkroom_trainer.data.randaugment import SIGNED, STEPS, UNSIGNED, rand_augment
from darkroom_trainer.data.transforms import (
    Evaluation,
    Preprocessing,
    Training,
    erase,
    evaluation_resize,
    normalize,
    random_box,
    shifted,
)
from tests.trainer.images import noisy

SIZE = 32


def draws(seed: int) -> Random:
    """The generator of one sample."""
    return Random(seed)


def preprocessing(size: int = SIZE) -> Preprocessing:
    return Preprocessing(evaluation_resize(size), size, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards: a pixel tells where it came from."""
    x = np.linspace(0, 255, width)[None, :].repeat(height, axis=0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, axis=1)
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize(("size", "resize"), [(16, 16), (32, 32), (63, 63), (64, 73), (224, 256), (299, 342)])
def test_evaluation_cuts_the_edge_off_large_images_only(size, resize):
    assert evaluation_resize(size) == resize


@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (500, 375), (32, 32), (5, 9), (1, 1)])
@pytest.mark.parametrize("size", [32, 64])
def test_evaluation_is_resize_and_center_crop(shape, size):
    image = gradient(*shape)
    pixels = Evaluation(preprocessing(size))(image)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    if min(shape) >= size:
        reference = tv.center_crop(tv.resize(image, [evaluation_resize(size)]), [size])
        assert np.abs(pixels.astype(int) - np.asarray(reference).astype(int)).max() <= 4, "but for half a pixel"


@given(st.integers(1, 700), st.integers(1, 700), st.floats(0, 1), st.integers(0, 2**32))
def test_random_box_lies_within_the_image(width, height, min_scale, seed):
    left, top, right, bottom = random_box(width, height, min_scale, draws(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_random_boxes_have_the_areas_that_were_asked_for():
    random = draws(0)
    boxes = [random_box(400, 400, 0.35, random) for _ in range(2000)]
    areas = np.array([(r - left) * (b - t) / 400**2 for left, t, r, b in boxes])
    aspects = np.array([(r - left) / (b - t) for left, t, r, b in boxes])
    assert areas.min() > 0.34
    assert areas.mean() == pytest.approx(0.63, abs=0.03), "large areas are refused a little more often"
    assert aspects.min() > 0.74
    assert aspects.max() < 1.35


def test_random_pad_shifts_by_an_eighth_at_most_and_mirrors_the_border():
    image = gradient(SIZE, SIZE)
    padded = np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = {padded[y : y + SIZE, x : x + SIZE].tobytes(): (x, y) for x, y in product(range(9), range(9))}
    seen = {windows[np.asarray(shifted(image, 4, draws(seed))).tobytes()] for seed in range(1000)}
    assert seen == set(windows.values())


def test_center_crop_in_training_is_that_of_evaluation():
    training = Training(Augmentation(crop=Crop.CENTER, horizontal_flip="0"), preprocessing())
    image = noisy((10, 200, 90), size=(70, 50))
    assert np.array_equal(training(image, draws(0)), Evaluation(preprocessing())(image))


@pytest.mark.parametrize("probability", ["0", "0.3", "1"])
def test_flips_as_often_as_asked(probability):
    training = Training(Augmentation(crop=Crop.CENTER, horizontal_flip=probability), preprocessing())
    image = gradient(SIZE, SIZE)
    flipped = sum(training(image, draws(seed))[0, 0, 0] > 128 for seed in range(500))
    assert flipped / 500 == pytest.approx(float(probability), abs=0.06)


def test_erasing_leaves_the_mean_which_normalises_to_zero():
    training = Training(Augmentation(crop=Crop.CENTER, horizontal_flip="0", erasing="1"), preprocessing())
    white = Image.new("RGB", (SIZE, SIZE), "white")
    pixels = training(white, draws(3))
    erased = (pixels == [128, 102, 76]).all(axis=2)
    assert 0.01 < erased.mean() < 0.4
    assert (pixels[~erased] == 255).all()
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    assert normalize(images, preprocessing())[0, :, torch.from_numpy(erased)].abs().max() < 0.02


def test_erase_gives_up_on_an_image_of_one_pixel():
    pixels = np.zeros((1, 1, 3), dtype=np.uint8)
    erase(pixels, np.array([1, 2, 3]), draws(0))
    assert not pixels.any()


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("name", [*SIGNED, *UNSIGNED])
def test_rand_augment_operations_are_torchvisions(name, magnitude):
    image = noisy((120, 60, 200), size=(33, 31))
    operation = (SIGNED | UNSIGNED)[name]
    theirs = v2.RandAugment()
    table, signed = theirs._AUGMENTATION_SPACE[name]
    magnitudes = table(STEPS + 1, image.height, image.width)
    strength = 0.0 if magnitudes is None else float(magnitudes[magnitude])
    for sign in (1, -1) if signed else (1,):
        expected = theirs._apply_image_or_video_transform(image, name, sign * strength, "nearest", {Image.Image: None})
        ours = operation(image, sign * magnitude / STEPS)
        different = np.any(np.asarray(ours) != np.asarray(expected), axis=2).mean()
        assert different <= (0.06 if name in GEOMETRIC else 0.0)


GEOMETRIC = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
"""The nearest pixel of a border case may be either of two."""


def test_rand_augment_draws_every_operation():
    image = noisy((120, 60, 200), size=(8, 8))
    results = Counter(rand_augment(image, 1, 15, draws(seed)).tobytes() for seed in range(600))
    assert len(results) >= 20, "nine with either sign and five without"


def test_training_draws_from_the_generator_alone():
    augmentation = Augmentation(rand_augment=RandAugment(operations=3, magnitude=20), erasing="0.5")
    training = Training(augmentation, preprocessing())
    image = noisy((120, 60, 200), size=(50, 40))
    first = [training(image, draws(seed)) for seed in range(20)]
    torch.manual_seed(99)
    np.random.seed(99)
    assert all(np.array_equal(training(image, draws(seed)), first[seed]) for seed in range(20))
    assert len({pixels.tobytes() for pixels in first}) == 20


def test_preprocessing_survives_model_json():
    assert Preprocessing.read(preprocessing().describe()) == preprocessing()
