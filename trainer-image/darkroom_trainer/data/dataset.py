"""A split as the loader sees it: SampleRef in, pixels out, never an exception for a damaged file."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

import numpy as np
import torch
from PIL import Image

from darkroom_trainer.data.decode import ImageError, Source, decode
from darkroom_trainer.data.folder import Listing
from darkroom_trainer.data.names import printable
from darkroom_trainer.data.place import Files, files_of
from darkroom_trainer.data.synthetic import Renderer
from darkroom_trainer.data.transforms import Transform
from darkroom_trainer.errors import StorageError
from darkroom_trainer.synthetic.fractal import render_fractal
from darkroom_trainer.tasks.base import Batch, SampleRef

_OUTAGES = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET,
    errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
}  # fmt: skip
"""What an open or a read answers while a volume is away, or this process out of means: it says nothing of the image."""


@dataclass(frozen=True)
class Item:
    """One sample: uint8 [size, size, 3] and its class; `corrupt` is the file's name where a blank stands in."""

    pixels: np.ndarray
    label: int
    corrupt: str | None = None


class FolderImages:
    """A Listing whose files are decoded and transformed when they are asked for.

    Pixels follow from (seed, epoch, index) alone: not from the worker, the process, the world size or any global
    random state.
    """

    def __init__(self, listing: Listing, transform: Transform, *, size: int, seed: int) -> None:
        self._files, self._labels = files_of(listing.root, listing.names), listing.labels
        self._transform, self._size, self._seed = transform, size, seed

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, index: int) -> str:
        return self._files.names[index]

    def __getitem__(self, ref: SampleRef) -> Item:
        label = int(self._labels[ref.index])
        image = open_image(self._files, ref.index, lambda source: decode(source, at_least=self._transform.at_least))
        if isinstance(image, str):
            blank = np.full((self._size, self._size, 3), 128, dtype=np.uint8)
            return Item(blank, label, corrupt=image)
        return Item(self._transform(image, sample_random(self._seed, ref), ref.strength), label)


class SceneImages:
    """One object in each, without end; as with FolderImages, pixels follow from the seed and the number alone."""

    def __init__(self, render: Renderer, transform: Transform, *, seed: int) -> None:
        self._render, self._transform, self._seed = render, transform, seed

    def __getitem__(self, ref: SampleRef) -> Item:
        scene = self._render(ref.index)
        pixels = self._transform(Image.fromarray(scene.pixels), sample_random(self._seed, ref), ref.strength)
        return Item(pixels, self._render.labels[scene.things[0].label])


class FractalImages:
    """Fractals without end; their classes follow those of the data set, from `first` on."""

    def __init__(self, classes: int, transform: Transform, *, first: int, size: int, seed: int) -> None:
        self._classes, self._transform, self._first, self._size, self._seed = classes, transform, first, size, seed

    def __getitem__(self, ref: SampleRef) -> Item:
        pixels, label = render_fractal(self._classes, size=self._size, seed=self._seed, number=ref.index)
        return Item(
            self._transform(Image.fromarray(pixels), sample_random(self._seed, ref), ref.strength), self._first + label
        )


def open_image(files: Files, index: int, read: Callable[[Source], Image.Image] = decode) -> Image.Image | str:
    """A file of a split, or its printable name if it is damaged.

    Raises StorageError if the volume is what failed.
    """
    try:
        return read(files.open(index))
    except ImageError as error:
        if _is_outage(error.__cause__):
            raise StorageError(f"{printable(files.path(index))} cannot be read: {error}") from error
        return files.names[index]


def _is_outage(cause: BaseException | None) -> bool:
    return isinstance(cause, MemoryError) or getattr(cause, "errno", None) in _OUTAGES


def sample_random(seed: int, ref: SampleRef, *, purpose: bytes = b"") -> Random:
    """The generator of one draw of one sample; another one for each purpose."""
    key = b"%d/%d/%d" % (seed, ref.epoch, ref.index) + (b"/synthetic" if ref.synthetic else b"") + purpose
    return Random(int.from_bytes(blake2b(key, digest_size=8).digest(), "big"))  # noqa: S311 - pixels, not secrets


def collate(items: Sequence[Item]) -> Batch:
    """Images uint8 [n, 3, H, W], channels last in memory as they were decoded; targets int64 [n]."""
    pixels = torch.from_numpy(np.stack([item.pixels for item in items]))
    return Batch(
        images=pixels.permute(0, 3, 1, 2),
        targets=torch.tensor([item.label for item in items]),
        valid=torch.tensor([0.0 if item.corrupt else 1.0 for item in items]),
        corrupt=[item.corrupt for item in items if item.corrupt],
    )
