"""Copy-paste (Ghiasi et al., 2021): objects of one sample laid over another, cut out along their masks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from darkroom_trainer.tasks.detection.data import Annotated
from darkroom_trainer.tasks.detection.sample import Item

_MOST = 254
"""Objects of an image that can be told apart in a mask of bytes; 255 lies around the image."""
_LEAST_SEEN = 0.1
"""Share of an object's pixels below which it counts as hidden."""


def pasted(item: Item, other: Item, random: Random) -> Item:
    """Some of the other's objects over this one's: boxes shrink to what can still be seen of each, or go."""
    below, above = _visible(item), _visible(other)
    chosen = [number for number in above if random.random() < 0.5] or list(above)[:1]
    over = np.isin(_map_of(other), [number + 1 for number in chosen])
    left = {number: mask & ~over for number, mask in below.items()}
    seen = [(item, n, m) for n, m in left.items() if m.sum() >= max(1, _LEAST_SEEN * below[n].sum())]
    seen += [(other, number, above[number]) for number in chosen]
    target = replace(
        item.target,
        boxes=np.array([_box(mask) for _, _, mask in seen], dtype=np.float32).reshape(-1, 4),
        labels=np.array([source.target.truth.labels[number] for source, number, _ in seen], dtype=np.int64),
    )
    return Item(np.where(over[..., None], other.pixels, item.pixels), target)


def _visible(item: Item) -> dict[int, np.ndarray]:
    """Masks on the canvas, bool [size, size], of the objects that can be seen there, by their number."""
    numbers = _map_of(item)
    present = {int(value) - 1 for value in np.unique(numbers)} & set(range(len(item.target.truth.labels)))
    return {number: numbers == number + 1 for number in sorted(present)}


def _map_of(item: Item) -> np.ndarray:
    """uint8 [size, size]: 0 where no object is, else its number from 1; nearer ones, later in the file, cover others."""
    return item.target.frame.labels(number_map(item.target.truth))


def number_map(truth: Annotated) -> Image.Image:
    """The same in the image's own pixels; crowds are none."""
    numbers = np.zeros((truth.height, truth.width), dtype=np.uint8)
    for number, segment in enumerate((truth.segments or ())[:_MOST]):
        if not truth.crowd[number]:
            numbers[decoded(segment, truth.width, truth.height)] = number + 1
    return Image.fromarray(numbers)


def decoded(segment: Sequence[Any] | Mapping[str, Any], width: int, height: int) -> np.ndarray:
    """bool [height, width] of polygons or run lengths, as COCO has them."""
    if isinstance(segment, Mapping) and isinstance(segment["counts"], str | bytes):
        return coco_mask.decode(segment).astype(bool)
    coded = coco_mask.frPyObjects(segment, height, width)
    return coco_mask.decode(coco_mask.merge(coded) if isinstance(coded, list) else coded).astype(bool)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
