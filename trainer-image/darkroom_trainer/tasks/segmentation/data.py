"""Images with masks, as files: folders of pairs, and PASCAL VOC. A mask's values are class numbers, 255 is `ignore`."""

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from darkroom_trainer.data.decode import Source, open_png
from darkroom_trainer.data.folder import EXTENSIONS
from darkroom_trainer.data.frame import FILL_LABEL
from darkroom_trainer.data.names import Names, printable
from darkroom_trainer.data.place import Place, scanner
from darkroom_trainer.data.split import SPLITS, Shares, divide
from darkroom_trainer.data.voc import VOC_CLASSES, find_image, read_names
from darkroom_trainer.errors import DataError

CLASSES_FILE = "classes.txt"
EIGHTY_TEN_TEN = Shares(0.8, 0.1, 0.1)
_MASK_MODES = ("P", "L", "1")
_NAMED = 8


@dataclass(frozen=True)
class Pairs:
    """One split: names of images and of their masks, relative to `root`, in the same order."""

    root: Place
    images: Names
    masks: Names

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class MaskedImages:
    """A data set: names of the classes by their value in the masks, and Pairs for train, val and, where there is one, test."""

    classes: tuple[str, ...]
    splits: dict[str, Pairs]


def read_mask_folder(path: Place, *, shares: Shares | None = None, seed: int = 0) -> MaskedImages:
    """`images` and `masks` below `path` divided, or below `train`, `val` and `test` in it; raises DataError."""
    classes = read_classes(path)
    if shares is None and (path / "train").is_dir():
        present = [split for split in SPLITS if (path / split).is_dir()]
        if "val" not in present:
            raise DataError(f"{path} has a folder `train` but none named `val`")
        return MaskedImages(classes, {split: _pairs(path, f"{split}/") for split in present})
    pairs = _pairs(path, "")
    names = [pairs.images.raw(index) for index in range(len(pairs))]
    masks = dict(zip(names, (pairs.masks.raw(index) for index in range(len(pairs))), strict=True))
    parts = divide("images", names, shares or EIGHTY_TEN_TEN, seed)
    divided = {
        split: Pairs(path, Names(part), Names(masks[name] for name in part)) for split, part in parts.items() if part
    }
    return MaskedImages(classes, divided)


def read_voc_masks(path: Place) -> MaskedImages:
    """JPEGImages and SegmentationClass by the lists in ImageSets/Segmentation; raises DataError."""
    classes = read_classes(path) if (path / CLASSES_FILE).exists() else ("background", *VOC_CLASSES)
    splits = {}
    for split, names in read_names(path, "Segmentation").items():
        images = [find_image(path, name) for name in names]
        masks = [f"SegmentationClass/{name}.png".encode() for name in names]
        for name, mask in zip(names, masks, strict=True):
            if not (path / os.fsdecode(mask)).is_file():
                raise DataError(f"{path / os.fsdecode(mask)} does not exist, but ImageSets/Segmentation names {name!r}")
        splits[split] = Pairs(path, Names(images), Names(masks))
    return MaskedImages(classes, splits)


def read_classes(path: Place) -> tuple[str, ...]:
    """The lines of `classes.txt`: the first one names value 0. Raises DataError."""
    file = path / CLASSES_FILE
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise DataError(
            f"{file} does not exist: a line for each class, the first one for value 0 of the masks"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise DataError(f"{file}: line {lines.index('') + 1} is empty: each line names the class of a value")
    if twice := [name for name in lines if lines.count(name) > 1]:
        raise DataError(f"{file} names {twice[0]!r} twice")
    if not 2 <= len(lines) <= FILL_LABEL:
        raise DataError(f"{file} names {len(lines)} class(es): 2 to {FILL_LABEL} can be told apart")
    return tuple(lines)


def read_mask(source: Source, name: str, classes: int, size: tuple[int, int]) -> Image.Image:
    """A mask (mode L) of an image of `size` (width, height).

    Raises ImageError for a damaged file, and DataError for one that means something else: it would be learned.
    """
    mask = open_png(source)
    if mask.mode not in _MASK_MODES:
        raise DataError(f"{name} is a mask of mode {mask.mode}: one channel with class numbers is expected (L or P)")
    if mask.size != size:
        raise DataError(f"{name} has {_size(mask.size)} pixels, its image has {_size(size)}")
    values = np.asarray(mask, dtype=np.uint8)
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if unknown := [int(value) for value in present if classes <= value != FILL_LABEL]:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise DataError(
            f"{name} has pixels of value {', '.join(map(str, unknown[:_NAMED]))}{more}, but there are {classes} classes, "
            f"0 to {classes - 1}; {FILL_LABEL} is ignored"
        )
    return Image.fromarray(values)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _pairs(root: Place, prefix: str) -> Pairs:
    """Files of the same stem in `images` and `masks`."""
    images, masks = (_by_stem(root, f"{prefix}{kind}") for kind in ("images", "masks"))
    if missing := sorted(images.keys() - masks.keys()):
        more = f", nor have {len(missing) - 1} others" if len(missing) > 1 else ""
        raise DataError(
            f"{root / prefix / 'images' / printable(images[missing[0]].rpartition(b'/')[2])} has no mask{more}"
        )
    if not images:
        raise DataError(f"{root / prefix / 'images'} has no PNG or JPEG files")
    stems = sorted(images)
    return Pairs(root, Names(images[stem] for stem in stems), Names(masks[stem] for stem in stems))


def _by_stem(root: Place, folder: str) -> dict[bytes, bytes]:
    """Names below `root` of the images in a folder, by stem."""
    endings = EXTENSIONS if folder.endswith("images") else (b".png",)
    found: dict[bytes, bytes] = {}
    for name in _listed(root / folder):
        stem, dot, ending = name.rpartition(b".")
        if name.startswith(b".") or dot + ending.lower() not in endings:
            continue
        if stem in found:
            raise DataError(f"{root / folder} has two files named {printable(stem)}")
        found[stem] = folder.encode() + b"/" + name
    return found


def _listed(folder: Place) -> list[bytes]:
    try:
        scandir, inside = scanner(folder)
        with scandir(inside) as entries:
            return sorted(entry.name for entry in entries)
    except FileNotFoundError:
        raise DataError(f"{folder} does not exist: folders `images` and `masks` are expected") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder: {error.strerror}") from error
