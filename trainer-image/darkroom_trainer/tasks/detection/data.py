"""Images with boxes: what is common to COCO and PASCAL VOC, and what is wrong with a box."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from darkroom_trainer.data.names import Names, printable
from darkroom_trainer.data.place import Place
from darkroom_trainer.errors import DataError

_NAMED = 5
_SLACK = 1.0
"""Pixels by which a box may reach over the border: tools round, and count from 0 or from 1. It is cut off."""


@dataclass(frozen=True)
class Annotated:
    """What is said of one image. boxes: float32 [n, 4], left, top, right, bottom in pixels; labels: int64 [n], from 0.

    crowd: bool [n], what is neither to be found nor to be held against anyone who finds it: COCO's crowds, VOC's difficult
    objects. areas: float32 [n], in pixels, of the object where the file says it, else of its box. segments: COCO's
    polygons or run lengths; None if nobody asked for them.
    """

    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    segments: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Annotations:
    """One split: names of images relative to `root`, and what is said of each."""

    root: Place
    names: Names
    items: Sequence[Annotated]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class BoxedImages:
    """A data set: sorted class names, and Annotations for train, val and, where there is one, test."""

    classes: tuple[str, ...]
    splits: dict[str, Annotations]


@dataclass
class RawBox:
    """An annotation as a file has it; `where` names it in a message."""

    where: str
    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False
    area: float | None = None
    segment: Any = None


@dataclass
class RawImage:
    """An image as a file has it."""

    name: bytes
    width: int
    height: int
    boxes: list[RawBox] = field(default_factory=list)


def assemble(root: Place, found: dict[str, list[RawImage]]) -> BoxedImages:
    """Check every box of every split, and the classes between them; raises DataError that names file and annotation."""
    classes = sorted({box.name for image in found["train"] for box in image.boxes})
    if not classes:
        raise DataError(f"{root}: no image of train has a box: there is nothing to learn")
    for split, images in found.items():
        if not images:
            raise DataError(f"{root}: {split} has no images")
        _check_classes(split, images, set(classes))
    numbers = {name: number for number, name in enumerate(classes)}
    splits = {
        split: Annotations(root, Names(i.name for i in images), [_annotated(i, numbers) for i in images])
        for split, images in found.items()
    }
    return BoxedImages(tuple(classes), splits)


def _check_classes(split: str, images: Iterable[RawImage], learned: set[str]) -> None:
    strangers: dict[str, str] = {}
    for image in images:
        for box in image.boxes:
            if box.name not in learned:
                strangers.setdefault(box.name, box.where)
    if strangers:
        told = ", ".join(f"{name!r} ({where})" for name, where in sorted(strangers.items())[:_NAMED])
        raise DataError(f"{split} has boxes of classes that no image of train has: {told}")


def _annotated(image: RawImage, numbers: dict[str, int]) -> Annotated:
    boxes = [checked(box, image) for box in image.boxes]
    own = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    areas = [box.area if box.area is not None else area for box, area in zip(image.boxes, own, strict=True)]
    return Annotated(
        image.width,
        image.height,
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array([numbers[box.name] for box in image.boxes], dtype=np.int64),
        np.array([box.crowd for box in image.boxes], dtype=bool),
        np.array(areas, dtype=np.float32),
        tuple(box.segment for box in image.boxes) if any(box.segment is not None for box in image.boxes) else None,
    )


def checked(box: RawBox, image: RawImage) -> tuple[float, float, float, float]:
    """The box, cut off at the image's border; DataError if it is none, or lies elsewhere."""
    left, top, right, bottom = box.box
    told = f"{box.where}: the box of {box.name!r} in {printable(image.name)}, {_numbers(box.box)}"
    if not all(np.isfinite(box.box)):
        raise DataError(f"{told}, is not made of numbers")
    if right <= left or bottom <= top:
        raise DataError(f"{told}, has no area: its right and bottom edges must lie beyond its left and top ones")
    outside = left < -_SLACK or top < -_SLACK or right > image.width + _SLACK or bottom > image.height + _SLACK
    if outside:
        raise DataError(f"{told}, lies outside the image, which has {image.width}x{image.height} pixels")
    inside = max(left, 0.0), max(top, 0.0), min(right, float(image.width)), min(bottom, float(image.height))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        raise DataError(f"{told}, has no area within the image, which has {image.width}x{image.height} pixels")
    return inside


def _numbers(box: Iterable[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"
