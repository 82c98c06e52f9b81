"""PASCAL VOC's folders: what is common to its masks and its boxes."""

from darkroom_trainer.data.place import Place
from darkroom_trainer.data.split import SPLITS
from darkroom_trainer.errors import DataError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def read_names(path: Place, kind: str) -> dict[str, list[str]]:
    """Names of the images of each split, from ImageSets/<kind>/<split>.txt; raises DataError."""
    folder = path / "ImageSets" / kind
    splits = {split: names for split in SPLITS if (names := _lines(folder / f"{split}.txt")) is not None}
    for split in ("train", "val"):
        if split not in splits:
            raise DataError(f"{folder / f'{split}.txt'} does not exist: it names the images of {split}, one a line")
    for split, names in splits.items():
        if not names:
            raise DataError(f"{folder / f'{split}.txt'} names no images")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{folder / f'{split}.txt'} names {twice!r} twice")
    return splits


def find_image(path: Place, name: str) -> bytes:
    """The image of a name, relative to `path`; raises DataError."""
    for ending in _ENDINGS:
        if (path / "JPEGImages" / f"{name}{ending}").is_file():
            return f"JPEGImages/{name}{ending}".encode()
    raise DataError(f"{path / 'JPEGImages'} has no image named {name!r}, but ImageSets has")


def _lines(file: Place) -> list[str] | None:
    """First word of each line; None if there is no such file."""
    try:
        return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
