"""Where an image lies on the canvas: pixels, masks and boxes go together, and boxes come back."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom_api.v1alpha1.augmentation import Augmentation, Crop
from darkroom_trainer.data.frame import FILL_LABEL, Letterbox, Views, shifted, whole

SIDES = st.integers(40, 400)


@st.composite
def frames(draw):
    width, height, size = draw(SIDES), draw(SIDES), draw(st.sampled_from([64, 96]))
    augmentation = Augmentation(crop=draw(st.sampled_from(Crop)), horizontal_flip=draw(st.sampled_from(["0", "1"])))
    return width, height, Views(augmentation, size).draw(width, height, Random(draw(st.integers(0, 10**6))))


@given(frames())
def test_boxes_come_back(drawn):
    width, height, frame = drawn
    left, top, right, bottom = frame.source
    inside = np.array([[left + 1, top + 1, right - 1, bottom - 1]])
    np.testing.assert_allclose(frame.boxes_back(frame.boxes(inside)), inside, atol=1e-2)
    everything = frame.boxes_back(np.array([[-1e6, -1e6, 1e6, 1e6]]))[0]
    assert everything[0] >= -1e-6 and everything[1] >= -1e-6
    assert everything[2] <= width + 1e-6 and everything[3] <= height + 1e-6


@given(frames(), st.floats(0.1, 0.5), st.floats(0.55, 0.9))
def test_picture_mask_and_box_agree(drawn, low, high):
    """A white rectangle: where it is on the canvas, its mask and its box are."""
    width, height, frame = drawn
    left, right = (round(frame.source[0] + share * (frame.source[2] - frame.source[0])) for share in (low, high))
    top, bottom = (round(frame.source[1] + share * (frame.source[3] - frame.source[1])) for share in (low, high))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[top:bottom, left:right] = 255
    picture = frame.picture(Image.fromarray(pixels), (0, 0, 0))[..., 0] > 127
    labels = frame.labels(Image.fromarray(pixels[..., 0] // 255))
    box = frame.boxes(np.array([[left, top, right, bottom]], dtype=np.float32))[0]
    for seen in (picture, labels == 1):
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        found = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        np.testing.assert_allclose(found, box, atol=1.01)


def test_all_of_a_wide_image_lies_in_the_middle():
    frame = whole(100, 50, 64)
    labels = frame.labels(Image.new("L", (100, 50), 3))
    assert (labels[16:48] == 3).all()
    assert (labels[:16] == FILL_LABEL).all() and (labels[48:] == FILL_LABEL).all()
    picture = frame.picture(Image.new("RGB", (100, 50), "white"), (1, 2, 3))
    assert picture[0, 0].tolist() == [1, 2, 3]
    assert picture[32, 0].tolist() == [255, 255, 255]


def test_labels_come_back_at_the_resolution_of_the_image():
    values = np.random.default_rng(0).integers(0, 5, (8, 10), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    frame = whole(100, 80, 200)
    assert (frame.labels_back(frame.labels(Image.fromarray(values))) == values).all()


def test_what_leaves_the_canvas_is_cut_off():
    frame = shifted(whole(100, 100, 50), 10, -5)
    assert frame.target == (10, 0, 50, 45)
    assert frame.source == pytest.approx((0, 10, 80, 100))


def test_letterbox_survives_its_description():
    letterbox = Letterbox(64, (0.5, 0.25, 1.0), (0.1, 0.2, 0.3))
    assert Letterbox.read(letterbox.describe()) == letterbox
    assert letterbox.fill == (128, 64, 255)
