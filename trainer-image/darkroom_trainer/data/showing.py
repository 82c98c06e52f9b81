"""How an image of a dense task becomes a sample: what segmentation and detection have in common."""

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from darkroom_api.v1alpha1.augmentation import Augmentation
from darkroom_trainer.data.color import jitter
from darkroom_trainer.data.dataset import sample_random
from darkroom_trainer.data.frame import Frame, Letterbox, Views
from darkroom_trainer.tasks.base import SampleRef

SampleItem = TypeVar("SampleItem", bound=Any)
"""What a split gives; `corrupt` is the name of a file that cannot be read."""


class Showing:
    """views: what training draws; None: all of each image, as in evaluation."""

    def __init__(self, letterbox: Letterbox, *, views: Views | None = None, seed: int) -> None:
        self._letterbox, self._views, self._seed = letterbox, views, seed
        self._changes = views.augmentation if views else Augmentation()

    def _picture(self, image: Image.Image, frame: Frame, random: Random) -> np.ndarray:
        """uint8 [size, size, 3]."""
        pixels = frame.picture(image, self._letterbox.fill)
        if color := self._changes.color:
            pixels = np.array(jitter(Image.fromarray(pixels), color, random))
        return pixels

    def _erases(self, strength: float, random: Random) -> bool:
        return self._views is not None and random.random() < strength * float(self._changes.erasing)

    def pasted(
        self,
        ref: SampleRef,
        count: int,
        shown: Callable[[SampleRef], SampleItem],
        paste: Callable[[SampleItem, SampleItem, Random], SampleItem],
    ) -> SampleItem:
        """A draw of a split of `count` samples with, as often as copyPaste says, a part of another sample over it."""
        item, random = shown(ref), sample_random(self._seed, ref, purpose=b"paste")
        if item.corrupt or random.random() >= float(self._changes.copy_paste):
            return item
        other = shown(SampleRef(random.randrange(count), ref.epoch, ref.strength))
        return item if other.corrupt else paste(item, other, random)
