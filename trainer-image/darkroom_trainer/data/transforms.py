"""From a decoded image to the pixels that the network sees: random in training, fixed in evaluation.

All random draws come from a generator that is handed in, so that a sample looks the same on any process.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from darkroom_api.v1alpha1.augmentation import Augmentation
from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.data.affine import draw_affine
from darkroom_trainer.data.color import jitter
from darkroom_trainer.data.randaugment import rand_augment

EVAL_CROP = 0.875
"""Part of the shorter side that evaluation looks at (224 of 256), where objects are larger than their details."""
SMALL_IMAGE = 64
"""Below this size evaluation looks at the whole shorter side: there are no pixels to spare."""

_ASPECT = (3 / 4, 4 / 3)
_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 3.3)
_TRIES = 10


PREPROCESSING = ("resize", "crop", "mean", "std")
"""What `Preprocessing.read` needs."""


class Standardised(Protocol):
    """Mean and standard deviation of R, G and B in 0..1."""

    @property
    def mean(self) -> tuple[float, float, float]: ...
    @property
    def std(self) -> tuple[float, float, float]: ...


class Transform(Protocol):
    """Brings an RGB image to `uint8 [size, size, 3]`."""

    at_least: int
    """Pixels per side below which a JPEG must not be decoded."""

    def __call__(self, image: Image.Image, random: Random, strength: float) -> np.ndarray:
        """strength: of the augmentation, 0 to 1."""
        ...


@dataclass(frozen=True)
class Preprocessing:
    """What stands between a file and the network in evaluation; it travels with the exported model.

    The centre square of `crop / resize` of the shorter side is resized to `crop` pixels (bilinear, antialiased), which is
    the same as resizing the shorter side to `resize` and cutting the centre out. RGB values in 0..1 are then normalised.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, vision: Vision) -> "Preprocessing":
        size = vision.image_size
        mean, std = (tuple(map(float, channel)) for channel in (vision.normalization.mean, vision.normalization.std))
        return cls(evaluation_resize(size), size, mean, std)  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        """As it stands in model.json."""
        return {
            "resize": self.resize,
            "crop": self.crop,
            "interpolation": "bilinear",
            "antialias": True,
            "colors": "RGB",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def read(cls, described: dict[str, Any]) -> "Preprocessing":
        """The inverse of `describe`."""
        mean, std = (tuple(map(float, described[key])) for key in ("mean", "std"))
        return cls(int(described["resize"]), int(described["crop"]), mean, std)  # type: ignore[arg-type]


def normalize(images: torch.Tensor, preprocessing: Standardised) -> torch.Tensor:
    """uint8 [n, 3, H, W] to float32 on the same device and in the same layout, each channel standardised."""
    mean, std = _channels(preprocessing, images.device)
    return (images.float() / 255 - mean) / std


@lru_cache(maxsize=8)
def _channels(preprocessing: Standardised, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [1, 3, 1, 1], copied to a device once: each copy would wait for it."""
    mean, std = (torch.tensor(channel).view(1, 3, 1, 1) for channel in (preprocessing.mean, preprocessing.std))
    return mean.to(device), std.to(device)


def evaluation_resize(size: int) -> int:
    """Shorter side, in pixels, from which evaluation cuts its centre square of `size`."""
    return round(size / EVAL_CROP) if size >= SMALL_IMAGE else size


class Evaluation:
    """The same pixels every time."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._resize, self._crop = preprocessing.resize, preprocessing.crop
        self.at_least = 2 * self._resize  # half the pixels away, the antialiased result hardly differs

    def __call__(self, image: Image.Image, random: Random | None = None, strength: float = 1.0) -> np.ndarray:  # noqa: ARG002
        return np.array(center_square(image, self._resize, self._crop))


def center_square(image: Image.Image, resize: int, crop: int) -> Image.Image:
    """Resize the shorter side to `resize` and cut out the centre square of `crop`, in one resampling."""
    side = min(image.size) * crop / resize
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((crop, crop), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


class Training:
    """Crop, mirror image, rotation and the like, colour, RandAugment and erasing, as `spec.vision.augmentation` says."""

    def __init__(self, augmentation: Augmentation, preprocessing: Preprocessing) -> None:
        self._size, self._resize = preprocessing.crop, preprocessing.resize
        self._crop = augmentation.crop
        self._min_scale = float(augmentation.min_scale)
        self._flip = float(augmentation.horizontal_flip)
        self._augmentation = augmentation
        self._erasing = float(augmentation.erasing)
        # The mean becomes 0 by normalisation: what was erased says nothing.
        self._erased = np.array([round(255 * value) for value in preprocessing.mean]).clip(0, 255).astype(np.uint8)
        self._fill = int(self._erased[0]), int(self._erased[1]), int(self._erased[2])
        self.at_least = self._smallest_side()

    def __call__(self, image: Image.Image, random: Random, strength: float = 1.0) -> np.ndarray:
        image = self._cropped(image, random, strength)
        if random.random() < self._flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if affine := draw_affine(self._augmentation, self._size, random):
            image = Image.fromarray(affine.picture(np.asarray(image), self._fill))
        if color := self._augmentation.color:
            image = jitter(image, color, random)
        if wild := self._augmentation.rand_augment:
            image = rand_augment(image, wild.operations, strength * wild.magnitude, random)
        pixels = np.array(image)
        if random.random() < strength * self._erasing:
            erase(pixels, self._erased, random)
        return pixels

    def _cropped(self, image: Image.Image, random: Random, strength: float) -> Image.Image:
        match self._crop:
            case "RandomResized":
                box = random_box(image.width, image.height, weaker(self._min_scale, strength), random)
                return image.resize((self._size, self._size), Image.Resampling.BILINEAR, box=box)
            case "RandomPad":
                return shifted(center_square(image, self._size, self._size), self._size // 8, random)
            case _:
                return center_square(image, self._resize, self._size)

    def _smallest_side(self) -> int:
        """Even the smallest random area is not enlarged because the JPEG was decoded small."""
        if self._crop == "RandomResized":
            return math.ceil(self._size / math.sqrt(max(self._min_scale, 0.01) * _ASPECT[0]))
        return 2 * self._resize


def weaker(min_scale: float, strength: float) -> float:
    """The smallest area of a random crop, when augmentation has not reached its full strength."""
    return min_scale + (1 - strength) * (1 - min_scale)


def random_box(width: int, height: int, min_scale: float, random: Random) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a random area of min_scale to 1 of the image, at most 4:3 either way."""
    for _ in range(_TRIES):
        area = width * height * random.uniform(min_scale, 1)
        aspect = math.exp(random.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    w = min(width, round(height * _ASPECT[1]))
    h = min(height, round(width / _ASPECT[0]))
    w, h = max(w, 1), max(h, 1)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def shifted(image: Image.Image, most: int, random: Random) -> Image.Image:
    """Pad by `most` pixels on each side, mirrored at the border, and cut out a random square of the old size."""
    dx, dy = random.randint(-most, most), random.randint(-most, most)
    pixels = np.asarray(image)
    rows, columns = _mirrored(image.height, dy), _mirrored(image.width, dx)
    return Image.fromarray(pixels.take(rows, axis=0).take(columns, axis=1))


def _mirrored(length: int, shift: int) -> np.ndarray:
    """Indices shift .. shift + length - 1, those outside reflected back in without repeating the border."""
    index = np.abs(np.arange(shift, shift + length))
    return np.minimum(index, 2 * (length - 1) - index)


def erase(pixels: np.ndarray, color: np.ndarray, random: Random) -> None:
    """Overwrite a random rectangle of 2 to 33 % of the image in place; leave it as it is where none fits."""
    height, width = pixels.shape[:2]
    for _ in range(_TRIES):
        area = height * width * random.uniform(*_ERASED_AREA)
        aspect = math.exp(random.uniform(math.log(_ERASED_ASPECT[0]), math.log(_ERASED_ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            pixels[top : top + h, left : left + w] = color
            return
