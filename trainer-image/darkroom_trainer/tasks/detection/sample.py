"""A sample of a detection."""

from dataclasses import dataclass

import numpy as np

from darkroom_trainer.data.frame import Frame
from darkroom_trainer.tasks.detection.data import Annotated


@dataclass(frozen=True)
class Target:
    """What is in an image. boxes: float32 [k, 4] on the canvas, without crowds; labels: int64 [k], from 0.

    index: the image's place in its split; truth: all that is said of it; frame: where it lies on the canvas; readable:
    False where a blank stands in.
    """

    index: int
    boxes: np.ndarray
    labels: np.ndarray
    truth: Annotated
    frame: Frame
    readable: bool = True


@dataclass(frozen=True)
class Item:
    """One sample: uint8 [size, size, 3] and its target; `corrupt` is the file's name where a blank stands in."""

    pixels: np.ndarray
    target: Target
    corrupt: str | None = None
