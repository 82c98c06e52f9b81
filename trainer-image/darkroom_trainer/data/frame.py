"""Where an image lies on the network's square canvas, so that masks and boxes go with it, and answers find the way back."""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom_api.v1alpha1.augmentation import Augmentation
from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.data.affine import Affine, draw_affine
from darkroom_trainer.data.decode import full_size
from darkroom_trainer.data.transforms import random_box, weaker

FILL_LABEL = 255
"""Class of pixels that belong to no image: neither learned nor counted."""


@dataclass(frozen=True)
class Frame:
    """The area `source` of an image fills the area `target` of a canvas of `size` pixels a side; both left, top, right, bottom.

    mirrored: the canvas is a mirror image; affine: what is done to the canvas after that.
    """

    source: tuple[float, float, float, float]
    target: tuple[int, int, int, int]
    size: int
    mirrored: bool = False
    affine: Affine | None = None

    def picture(self, image: Image.Image, fill: tuple[int, int, int]) -> np.ndarray:
        """uint8 [size, size, 3]: bilinear, antialiased."""
        canvas = Image.new("RGB", (self.size, self.size), fill)
        width, height = full_size(image)
        scale = image.width / width, image.height / height
        canvas.paste(self._part(image, Image.Resampling.BILINEAR, scale), self.target[:2])
        pixels = self._turned(np.array(canvas))
        return self.affine.picture(pixels, fill) if self.affine else pixels

    def labels(self, mask: Image.Image) -> np.ndarray:
        """uint8 [size, size] of a mask of classes (mode L): the nearest pixel, and FILL_LABEL around the image."""
        canvas = Image.new("L", (self.size, self.size), FILL_LABEL)
        canvas.paste(self._part(mask, Image.Resampling.NEAREST), self.target[:2])
        labels = self._turned(np.array(canvas))
        return self.affine.labels(labels, FILL_LABEL) if self.affine else labels

    def shown(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of the image on the canvas, float32 [n, 4], cut off at what is to be seen; and whether their middles are."""
        left, top, right, bottom = self.target
        if self.mirrored:
            left, right = self.size - right, self.size - left
        boxes, seen = _cut(self.boxes(boxes), (left, top, right, bottom))
        if self.affine is None:
            return boxes, seen
        moved, still = _cut(self.affine.boxes(boxes), (0, 0, self.size, self.size))
        return moved, seen & still

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """float32 [n, 4] on the canvas, of boxes (left, top, right, bottom) in the image; they may reach over its border.

        As they lie before `affine`.
        """
        moved = (boxes - self._offset(self.source)) * self._scale() + self._offset(self.target)
        if self.mirrored:
            moved[:, [0, 2]] = self.size - moved[:, [2, 0]]
        return moved.astype(np.float32)

    def boxes_back(self, boxes: np.ndarray) -> np.ndarray:
        """The inverse of `boxes`, cut off at the image's border: float64 [n, 4]."""
        found = boxes.astype(np.float64)
        if self.mirrored:
            found[:, [0, 2]] = self.size - found[:, [2, 0]]
        found = (found - self._offset(self.target)) / self._scale() + self._offset(self.source)
        left, top, right, bottom = self.source
        return found.clip([left, top, left, top], [right, bottom, right, bottom])

    def labels_back(self, labels: np.ndarray) -> np.ndarray:
        """A map of classes on the canvas, uint8 [size, size], at the resolution of the source."""
        left, top, right, bottom = self.target
        part = Image.fromarray(self._turned(labels)[top:bottom, left:right])
        width, height = self.source[2] - self.source[0], self.source[3] - self.source[1]
        return np.asarray(part.resize((round(width), round(height)), Image.Resampling.NEAREST))

    def _part(
        self, image: Image.Image, resampling: Image.Resampling, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Image.Image:
        """scale: of the image at hand to the one whose pixels `source` counts."""
        left, top, right, bottom = self.target
        x0, y0, x1, y1 = (edge * factor for edge, factor in zip(self.source, scale * 2, strict=True))
        box = (x0, y0, min(x1, image.width), min(y1, image.height))
        return image.resize((right - left, bottom - top), resampling, box=box)

    def _turned(self, pixels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(pixels[:, ::-1]) if self.mirrored else pixels

    def _scale(self) -> np.ndarray:
        (left, top, right, bottom), (x0, y0, x1, y1) = self.source, self.target
        x, y = (x1 - x0) / (right - left), (y1 - y0) / (bottom - top)
        return np.array([x, y, x, y])

    @staticmethod
    def _offset(area: tuple[float, ...]) -> np.ndarray:
        return np.array([area[0], area[1], area[0], area[1]])


def _cut(boxes: np.ndarray, area: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut off at the border of an area, and whether each one's middle was inside."""
    left, top, right, bottom = area
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (middle >= (left, top)).all(axis=1) & (middle <= (right, bottom)).all(axis=1)
    return boxes.clip(np.float32([left, top, left, top]), np.float32([right, bottom, right, bottom])), inside


def whole(width: int, height: int, size: int) -> Frame:
    """All of the image in the middle of the canvas, as large as it fits, its aspect kept."""
    scale = size / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - w) // 2, (size - h) // 2
    return Frame((0, 0, width, height), (left, top, left + w, top + h), size)


def shifted(frame: Frame, dx: int, dy: int) -> Frame:
    """The same, moved on the canvas; what leaves it is cut off."""
    x0, y0, x1, y1 = (a + b for a, b in zip(frame.target, (dx, dy, dx, dy), strict=True))
    target = max(0, x0), max(0, y0), min(frame.size, x1), min(frame.size, y1)
    if target[0] >= target[2] or target[1] >= target[3]:
        return frame
    x_scale, y_scale, *_ = frame._scale()
    left, top = frame.source[0] + (target[0] - x0) / x_scale, frame.source[1] + (target[1] - y0) / y_scale
    right, bottom = left + (target[2] - target[0]) / x_scale, top + (target[3] - target[1]) / y_scale
    return replace(frame, source=(left, top, min(right, frame.source[2]), min(bottom, frame.source[3])), target=target)


@dataclass(frozen=True)
class Views:
    """Which part of an image a training sample shows, as `spec.vision.augmentation` says."""

    augmentation: Augmentation
    size: int

    def draw(self, width: int, height: int, random: Random, strength: float = 1.0) -> Frame:
        """A random one."""
        match self.augmentation.crop:
            case "RandomResized":
                least = weaker(float(self.augmentation.min_scale), strength)
                box = random_box(width, height, least, random)
                frame = Frame(box, (0, 0, self.size, self.size), self.size)
            case "RandomPad":
                most = self.size // 8
                shift = random.randint(-most, most), random.randint(-most, most)
                frame = shifted(whole(width, height, self.size), *shift)
            case _:
                frame = whole(width, height, self.size)
        mirrored = random.random() < float(self.augmentation.horizontal_flip)
        return replace(frame, mirrored=mirrored, affine=draw_affine(self.augmentation, self.size, random))


LETTERBOX = ("size", "mean", "std")
"""What `Letterbox.read` needs."""


@dataclass(frozen=True)
class Letterbox:
    """What stands between a file and the network in evaluation, of tasks that must see all of an image.

    The image is resized (bilinear, antialiased) so that its longer side has `size` pixels, and lies in the middle of a square
    of the mean colour. RGB values in 0..1 are then normalised.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, vision: Vision) -> "Letterbox":
        mean, std = (tuple(map(float, channel)) for channel in (vision.normalization.mean, vision.normalization.std))
        return cls(vision.image_size, mean, std)  # type: ignore[arg-type]

    @property
    def fill(self) -> tuple[int, int, int]:
        """What normalisation makes 0, as far as a byte can hold it."""
        return tuple(min(255, max(0, round(255 * value))) for value in self.mean)  # type: ignore[return-value]

    def describe(self) -> dict[str, Any]:
        """As it stands in model.json."""
        return {
            "fit": "letterbox",
            "size": self.size,
            "interpolation": "bilinear",
            "antialias": True,
            "colors": "RGB",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def read(cls, described: Any) -> "Letterbox":
        """The inverse of `describe`."""
        mean, std = (tuple(map(float, described[key])) for key in ("mean", "std"))
        return cls(int(described["size"]), mean, std)  # type: ignore[arg-type]


def stacked(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 [n, 3, size, size], channels last in memory as they were decoded."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
