"""Reads a folder of class folders: what images there are, of which class, in which split.

One `scandir` per folder and nothing per file, so that a million files on a network volume take seconds and not hours;
names are kept in one block of bytes, which loader processes share instead of copying a million objects.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from darkroom_trainer.data.names import Names, printable
from darkroom_trainer.data.place import Place, scanner
from darkroom_trainer.data.split import SPLITS, Shares, divide
from darkroom_trainer.errors import DataError

EXTENSIONS = (b".png", b".jpg", b".jpeg")
"""Files that count as images, in any case; others are left alone and counted."""

EIGHTY_TEN_TEN = Shares(0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Listing:
    """One split. `names` are relative to `root`, sorted; `labels` is int32 [n], an index into the classes."""

    root: Place
    names: Names
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Folder:
    """A data set: sorted class names, and a Listing for train, val and, where there is one, test."""

    classes: tuple[str, ...]
    splits: dict[str, Listing]
    ignored: int
    """Files inside class folders that are neither PNG nor JPEG."""


@dataclass
class _Found:
    """Images below one folder of classes, by class name: names relative to the data set, and other files counted."""

    names: dict[bytes, list[bytes]]
    ignored: dict[bytes, int]


def read_folder(path: Place, *, shares: Shares | None = None, seed: int = 0) -> Folder:
    """List the images below `path` by the rule of `data.split`.

    With shares, `path` holds class folders and each class is divided. Without, the folders `train`, `val` and `test` are
    the splits if there is one named `train`; otherwise it is 80/10/10 with seed 0. Raises DataError with the folder's
    name for whatever makes the set unusable.
    """
    top = set(_folders(path))
    if shares is None and b"train" in top:
        return _read_divided(path, top)
    if misspelt := [name for name in top if name.lower() == b"train" != name]:
        raise DataError(
            f"{path / printable(misspelt[0])} would be a class: the split folders are `train`, `val`, `test`"
        )
    if shares is not None and b"train" in top and top <= {split.encode() for split in SPLITS}:
        raise DataError(
            f"{path} is already divided into {_listed(top)}: remove data.split, or point data.path at one folder of classes"
        )
    return _read_and_divide(path, shares or EIGHTY_TEN_TEN, seed)


def _read_divided(path: Place, top: set[bytes]) -> Folder:
    present = [split for split in SPLITS if split.encode() in top]
    if "val" not in present:
        raise DataError(f"{path} has a folder `train` but none named `val`; there are {_listed(top)}")
    found = {split: _find(path / split, prefix=split.encode() + b"/") for split in present}
    classes = sorted(found["train"].names)
    _check_classes(path / "train", classes)
    for split in present:
        _check_same_classes(path, split, set(found[split].names), set(classes))
        _check_filled(path / split, found[split])
    return Folder(
        tuple(_class_name(path, name) for name in classes),
        {split: _listing(path, classes, found[split].names) for split in present},
        sum(sum(part.ignored.values()) for part in found.values()),
    )


def _read_and_divide(path: Place, shares: Shares, seed: int) -> Folder:
    found = _find(path)
    classes = sorted(found.names)
    _check_classes(path, classes)
    _check_filled(path, found)
    divided = {name: divide(_class_name(path, name), found.names[name], shares, seed) for name in classes}
    splits = {}
    for split in SPLITS:
        if split == "test" and shares.test == 0:
            continue
        splits[split] = _listing(path, classes, {name: divided[name][split] for name in classes})
        if not splits[split]:
            raise DataError(
                f"{path}: a share of {getattr(shares, split):g} leaves split `{split}` without images "
                f"({sum(map(len, found.names.values()))} images in {len(classes)} classes): choose other shares in data.split"
            )
    return Folder(tuple(_class_name(path, name) for name in classes), splits, sum(found.ignored.values()))


def _listing(root: Place, classes: Sequence[bytes], names: dict[bytes, list[bytes]]) -> Listing:
    counts = [len(names.get(name, ())) for name in classes]
    return Listing(
        root,
        Names(image for name in classes for image in sorted(names.get(name, ()))),
        np.repeat(np.arange(len(classes), dtype=np.int32), counts),
    )


def _find(path: Place, prefix: bytes = b"") -> _Found:
    """Every image below the class folders of `path`."""
    found = _Found({}, {})
    for name in _folders(path):
        folder = path / os.fsdecode(name)
        try:
            scandir, inside = scanner(folder)
            entries = list(walk(inside, prefix + name + b"/", scandir))
        except OSError as error:
            raise DataError(f"class folder {path / printable(name)} cannot be read: {error.strerror}") from error
        found.names[name] = [image for image, usable in entries if usable]
        found.ignored[name] = len(entries) - len(found.names[name])
    return found


def walk(
    folder: bytes, prefix: bytes, scandir: Callable[[bytes], AbstractContextManager[Any]] = os.scandir
) -> Iterator[tuple[bytes, bool]]:
    """Names below a class folder, and whether each is an image; folders within a class are searched too.

    An entry is asked for its kind only when its name is no image's: on file systems that do not say it in the
    listing, the question costs a round trip. Links to folders are not followed, for they can go in circles.
    """
    with scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if entry.name.lower().endswith(EXTENSIONS):
                yield prefix + entry.name, True
            elif entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path, prefix + entry.name + b"/", scandir)
            else:
                yield prefix + entry.name, False


def _folders(path: Place) -> list[bytes]:
    """Names of the folders in `path`, hidden ones left out; DataError where it cannot be read."""
    try:
        scandir, inside = scanner(path)
        with scandir(inside) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(b".") and entry.is_dir())
    except FileNotFoundError:
        raise DataError(f"data.path: {path} does not exist in the claim") from None
    except OSError as error:
        raise DataError(f"data.path: {path} cannot be read as a folder: {error.strerror}") from error


def _check_classes(path: Place, classes: Sequence[bytes]) -> None:
    if not classes:
        raise DataError(f"{path} has no class folders: one folder per class is expected, with PNG or JPEG files in it")
    if len(classes) == 1:
        raise DataError(f"{path} has one class, {printable(classes[0])!r}: there is nothing to tell apart")


def _check_same_classes(path: Place, split: str, present: set[bytes], expected: set[bytes]) -> None:
    """val has every class; test may lack some; neither has one that is not learned."""
    if unknown := present - expected:
        raise DataError(f"{path / split} has classes that {path / 'train'} has not: {_listed(unknown)}")
    if split == "val" and (missing := expected - present):
        raise DataError(f"{path / split} lacks classes that {path / 'train'} has: {_listed(missing)}")
    if not present:
        raise DataError(f"{path / split} has no class folders")


def _check_filled(path: Place, found: _Found) -> None:
    for name in sorted(found.names):
        if not found.names[name]:
            raise DataError(
                f"class folder {path / printable(name)} has no PNG or JPEG files "
                f"({found.ignored[name]} files of other types)"
            )


def _class_name(path: Place, name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DataError(f"class folder {path / printable(name)} has a name that is not UTF-8") from None


def _listed(names: Iterable[bytes], limit: int = 5) -> str:
    """Up to five names, and how many there are besides."""
    shown = sorted(printable(name) for name in names)
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more
