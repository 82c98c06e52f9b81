"""What the exported networks of segmentation and detection have in common: images that lie on one square canvas."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom_trainer.data.frame import LETTERBOX, Frame, Letterbox, stacked, whole
from darkroom_trainer.data.transforms import normalize


class OnCanvas:
    """The part of `Exported` that stands before and after the network."""

    needed = ("architecture", "imageSize", "classes", *(f"preprocessing.{key}" for key in LETTERBOX))
    at_least = 0

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._architecture: str = description["architecture"]
        self._classes: list[str] = description["classes"]
        self._letterbox = Letterbox.read(description["preprocessing"])

    def prepare(self, image: Image.Image) -> tuple[np.ndarray, Frame]:
        """uint8 [size, size, 3], and where the image lies in it."""
        frame = whole(*image.size, self._letterbox.size)
        return frame.picture(image, self._letterbox.fill), frame

    def _inputs(self, prepared: Sequence[tuple[np.ndarray, Frame]], device: torch.device) -> torch.Tensor:
        """float32 [n, 3, size, size], standardised."""
        images = stacked([pixels for pixels, _ in prepared]).contiguous().to(device)
        return normalize(images, self._letterbox)
