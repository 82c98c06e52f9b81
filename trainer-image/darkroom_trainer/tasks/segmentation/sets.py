"""Samples of a segmentation: real images with their masks, and scenes; both are shown in the same way."""

from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from darkroom_trainer.data.dataset import open_image, sample_random
from darkroom_trainer.data.decode import full_size
from darkroom_trainer.data.frame import FILL_LABEL, whole
from darkroom_trainer.data.names import printable
from darkroom_trainer.data.place import files_of
from darkroom_trainer.data.showing import Showing
from darkroom_trainer.data.synthetic import Renderer
from darkroom_trainer.data.transforms import erase
from darkroom_trainer.tasks.base import SampleRef
from darkroom_trainer.tasks.segmentation.data import Pairs, read_mask


@dataclass(frozen=True)
class Item:
    """One sample: uint8 [size, size, 3] and the classes of its pixels; `corrupt` is a file's name where a blank stands in."""

    pixels: np.ndarray
    labels: np.ndarray
    corrupt: str | None = None


class MaskShowing(Showing):
    """How an image and its mask become a sample."""

    def item(self, image: Image.Image, mask: Image.Image, ref: SampleRef) -> Item:
        """Follows from image, mask, seed and draw alone."""
        random, size = sample_random(self._seed, ref), self._letterbox.size
        frame = (
            self._views.draw(*full_size(image), random, ref.strength) if self._views else whole(*full_size(image), size)
        )
        pixels = self._picture(image, frame, random)
        return self._erased(pixels, frame.labels(mask), random, ref.strength)

    def _erased(self, pixels: np.ndarray, labels: np.ndarray, random: Random, strength: float) -> Item:
        """What is erased has no class either."""
        if not self._erases(strength, random):
            return Item(pixels, labels)
        both = np.dstack([pixels, labels])
        erase(both, np.array([*self._letterbox.fill, FILL_LABEL], dtype=np.uint8), random)
        return Item(np.ascontiguousarray(both[..., :3]), np.ascontiguousarray(both[..., 3]))

    def blank(self, corrupt: str) -> Item:
        """What stands in for a file that cannot be read: nothing to learn from."""
        size = self._letterbox.size
        return Item(
            np.full((size, size, 3), 128, dtype=np.uint8), np.full((size, size), FILL_LABEL, dtype=np.uint8), corrupt
        )


class MaskedSet:
    """Pairs, decoded and transformed when they are asked for; a damaged image or mask gives a blank without a class."""

    def __init__(self, pairs: Pairs, classes: int, showing: MaskShowing) -> None:
        self._classes, self._showing = classes, showing
        self._images, self._masks = (files_of(pairs.root, names) for names in (pairs.images, pairs.masks))

    def __len__(self) -> int:
        return len(self._images.names)

    def __getitem__(self, ref: SampleRef) -> Item:
        return self._showing.pasted(ref, len(self), self._shown, pasted)

    def _shown(self, ref: SampleRef) -> Item:
        image = open_image(self._images, ref.index)
        if isinstance(image, str):
            return self._showing.blank(image)
        name, size = printable(self._masks.path(ref.index)), full_size(image)
        mask = open_image(self._masks, ref.index, lambda source: read_mask(source, name, self._classes, size))
        return self._showing.blank(mask) if isinstance(mask, str) else self._showing.item(image, mask, ref)


def pasted(item: Item, other: Item, random: Random) -> Item:
    """Some classes of another sample laid over this one, at least one of them (ClassMix: Olsson et al., 2021).

    Value 0, which lies behind the others, stays where it is.
    """
    present = [int(value) for value in np.unique(other.labels) if value not in (0, FILL_LABEL)]
    chosen = random.sample(present, random.randint(1, len(present))) if present else []
    over = np.isin(other.labels, chosen)
    return Item(
        np.where(over[..., None], other.pixels, item.pixels), np.where(over, other.labels, item.labels), item.corrupt
    )


class SceneMasks:
    """Scenes with their masks, without end."""

    def __init__(self, render: Renderer, background: int, showing: MaskShowing) -> None:
        self._render, self._showing = render, showing
        self._values = np.array([background, *render.labels], dtype=np.uint8)

    def __getitem__(self, ref: SampleRef) -> Item:
        scene = self._render(ref.index)
        mask = Image.fromarray(self._values[scene.label_map()])
        return self._showing.item(Image.fromarray(scene.pixels), mask, ref)
