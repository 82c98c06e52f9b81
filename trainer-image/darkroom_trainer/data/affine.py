"""Rotation, shift and scale of a square canvas: pixels, masks and boxes together. The geometry is torchvision's `affine`."""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from darkroom_api.v1alpha1.augmentation import Augmentation


@dataclass(frozen=True)
class Affine:
    """Turned by `angle` degrees clockwise and scaled about the middle, then shifted by `shift` pixels; a canvas of `size`."""

    angle: float
    shift: tuple[float, float]
    scale: float
    size: int

    def picture(self, pixels: np.ndarray, fill: tuple[int, int, int]) -> np.ndarray:
        """uint8 [size, size, 3]: bilinear; `fill` where nothing was."""
        return self._moved(pixels, Image.Resampling.BILINEAR, fill)

    def labels(self, labels: np.ndarray, fill: int) -> np.ndarray:
        """uint8 [size, size] of a map of classes: the nearest pixel."""
        return self._moved(labels, Image.Resampling.NEAREST, fill)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """float32 [n, 4]: upright boxes around the moved corners; they may reach over the border."""
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        moved = self.points(corners)
        return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Where points (x, y) of the canvas go: [..., 2]."""
        turn, middle = math.radians(self.angle), self.size / 2
        cosine, sine = self.scale * math.cos(turn), self.scale * math.sin(turn)
        return (points - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle + np.array(self.shift)

    def _moved(self, pixels: np.ndarray, resampling: Image.Resampling, fill: int | tuple[int, int, int]) -> np.ndarray:
        """Pillow wants to know where each pixel comes from: the inverse."""
        turn, middle = math.radians(self.angle), self.size / 2
        cosine, sine = math.cos(turn) / self.scale, math.sin(turn) / self.scale
        x, y = -middle - self.shift[0], -middle - self.shift[1]
        matrix = (cosine, sine, cosine * x + sine * y + middle, -sine, cosine, cosine * y - sine * x + middle)
        image = Image.fromarray(pixels)
        return np.array(image.transform(image.size, Image.Transform.AFFINE, matrix, resampling, fillcolor=fill))


def draw_affine(augmentation: Augmentation, size: int, random: Random) -> Affine | None:
    """A random one, as `spec.vision.augmentation` says; None, and no draw, if it says nothing."""
    rotation, shift, scaling = (
        float(part) for part in (augmentation.rotation, augmentation.translation, augmentation.scaling)
    )
    if not (rotation or shift or scaling):
        return None
    return Affine(
        angle=random.uniform(-rotation, rotation),
        shift=(random.uniform(-shift, shift) * size, random.uniform(-shift, shift) * size),
        scale=random.uniform(1 - scaling, 1 + scaling),
        size=size,
    )
