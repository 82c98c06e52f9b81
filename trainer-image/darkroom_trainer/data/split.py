"""Divides the images of each class between train, val and test, the same way on any machine.

An image's place follows from a hash of the seed and its name within the data set, so neither the order in which a file
system lists names nor the place where the volume is mounted plays a part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from darkroom_trainer.errors import DataError

SPLITS = ("train", "val", "test")
NEEDED = ("train", "val")
"""Splits that every class must be in: what is never trained on or never measured is not learned on purpose."""


@dataclass(frozen=True)
class Shares:
    """Share of each class in each split, 0 to 1; they sum to 1 at most, and what is left over is not used."""

    train: float
    val: float
    test: float


def divide(class_name: str, names: Sequence[bytes], shares: Shares, seed: int) -> dict[str, list[bytes]]:
    """The names of one class, divided: disjoint, each split in sorted order.

    `train` and `val` get at least one image each, taken from the split with the most where a share rounds to none. Raises
    DataError where the class is too small for that.
    """
    sizes = split_sizes(class_name, len(names), shares)
    key = seed.to_bytes(8, "big", signed=True)
    order = sorted(names, key=lambda name: (blake2b(name, key=key, digest_size=8).digest(), name))
    parts, start = {}, 0
    for split, size in sizes.items():
        parts[split] = sorted(order[start : start + size])
        start += size
    return parts


def split_sizes(class_name: str, count: int, shares: Shares) -> dict[str, int]:
    """How many of `count` images each split gets, by largest remainder; DataError where a needed one gets none."""
    wanted = {split: count * getattr(shares, split) for split in SPLITS}
    sizes = {split: int(amount + 1e-9) for split, amount in wanted.items()}
    left = round(sum(wanted.values())) - sum(sizes.values())
    by_remainder = sorted(SPLITS, key=lambda split: sizes[split] - wanted[split])  # stable: ties go in order
    for split in by_remainder[:left]:
        sizes[split] += 1
    for split in NEEDED:
        if sizes[split] == 0:
            _give_one(sizes, split, class_name, count)
    return sizes


def _give_one(sizes: dict[str, int], split: str, class_name: str, count: int) -> None:
    """Move an image into an empty split: an unused one, else from the split that can spare the most."""
    if sum(sizes.values()) < count:
        sizes[split] = 1
        return
    spare = {name: size - (name in NEEDED) for name, size in sizes.items()}
    donor = max(SPLITS, key=lambda name: spare[name])
    if spare[donor] < 1:
        raise DataError(
            f"class {class_name!r} has {count} image(s), too few to have one each in "
            f"{' and '.join(NEEDED)}: add images to its folder or remove the folder"
        )
    sizes[donor] -= 1
    sizes[split] = 1
