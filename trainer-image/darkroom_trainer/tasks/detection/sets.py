"""Samples of a detection: real images with their boxes, and scenes; both are shown in the same way."""

from random import Random

import numpy as np
from PIL import Image

from darkroom_trainer.data.dataset import open_image, sample_random
from darkroom_trainer.data.decode import full_size
from darkroom_trainer.data.frame import Frame, whole
from darkroom_trainer.data.names import printable
from darkroom_trainer.data.place import files_of
from darkroom_trainer.data.showing import Showing
from darkroom_trainer.data.synthetic import Renderer
from darkroom_trainer.data.transforms import erase
from darkroom_trainer.errors import DataError
from darkroom_trainer.synthetic.scene import Scene
from darkroom_trainer.tasks.base import SampleRef
from darkroom_trainer.tasks.detection.data import Annotated, Annotations
from darkroom_trainer.tasks.detection.paste import pasted
from darkroom_trainer.tasks.detection.sample import Item, Target

_TRIES = 20
_LEAST_SIDE = 1.0
"""Pixels of the canvas below which a box is nothing to learn from."""


class BoxShowing(Showing):
    """How an image and its boxes become a sample."""

    def item(self, image: Image.Image, truth: Annotated, ref: SampleRef) -> Item:
        """Follows from image, boxes, seed and draw alone."""
        random = sample_random(self._seed, ref)
        frame, boxes, labels = self._framed(truth, random, ref.strength)
        pixels = self._picture(image, frame, random)
        if self._erases(ref.strength, random):
            erase(pixels, np.array(self._letterbox.fill, dtype=np.uint8), random)
        return Item(pixels, Target(ref.index, boxes, labels, truth, frame))

    def _framed(self, truth: Annotated, random: Random, strength: float) -> tuple[Frame, np.ndarray, np.ndarray]:
        """A view in which at least one of the image's boxes is left, if one can be found; else the whole image."""
        for _ in range(_TRIES if self._views else 0):
            frame = self._views.draw(truth.width, truth.height, random, strength)  # type: ignore[union-attr]
            boxes, labels = kept(truth, frame)
            if len(boxes) or not len(truth.boxes):
                return frame, boxes, labels
        frame = whole(truth.width, truth.height, self._letterbox.size)
        return frame, *kept(truth, frame)

    def blank(self, truth: Annotated, index: int, corrupt: str) -> Item:
        """What stands in for a file that cannot be read: nothing to learn from."""
        size, none = self._letterbox.size, (np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64))
        target = Target(index, *none, truth, whole(truth.width, truth.height, size), readable=False)
        return Item(np.full((size, size, 3), 128, dtype=np.uint8), target, corrupt)


def kept(truth: Annotated, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and labels of the objects whose middle the frame shows, cut off at its border; crowds are none."""
    boxes, shown = frame.shown(truth.boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    good = shown & (sides >= _LEAST_SIDE).all(axis=1) & ~truth.crowd
    return boxes[good], truth.labels[good]


class BoxedSet:
    """Annotations whose images are decoded and transformed when asked for."""

    def __init__(self, annotations: Annotations, showing: BoxShowing) -> None:
        self._annotations, self._showing = annotations, showing
        self._files = files_of(annotations.root, annotations.names)

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, ref: SampleRef) -> Item:
        return self._showing.pasted(ref, len(self), self._shown, pasted)

    def _shown(self, ref: SampleRef) -> Item:
        truth = self._annotations.items[ref.index]
        image = open_image(self._files, ref.index)
        if isinstance(image, str):
            return self._showing.blank(truth, ref.index, image)
        width, height = full_size(image)
        if (width, height) != (truth.width, truth.height):
            raise DataError(
                f"{printable(self._files.path(ref.index))} has {width}x{height} pixels, its annotation says "
                f"{truth.width}x{truth.height}: its boxes would lie elsewhere"
            )
        return self._showing.item(image, truth, ref)


class SceneBoxes:
    """Scenes with their boxes, without end."""

    def __init__(self, render: Renderer, showing: BoxShowing) -> None:
        self._render, self._showing = render, showing

    def __getitem__(self, ref: SampleRef) -> Item:
        scene = self._render(ref.index)
        return self._showing.item(Image.fromarray(scene.pixels), self._annotated(scene), ref)

    def _annotated(self, scene: Scene) -> Annotated:
        height, width = scene.pixels.shape[:2]
        return Annotated(
            width,
            height,
            np.array([thing.box for thing in scene.things], dtype=np.float32).reshape(-1, 4),
            np.array([self._render.labels[thing.label] for thing in scene.things], dtype=np.int64),
            np.zeros(len(scene.things), dtype=bool),
            np.array([thing.mask.sum() for thing in scene.things], dtype=np.float32),
        )
