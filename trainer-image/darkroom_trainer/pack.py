"""`darkroom-trainer pack FOLDER OUT`: the files of a data set in a few large ones, as `data/packed.py` describes them."""

import argparse
import hashlib
import math
import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom_api.v1alpha1.tasks import DataFormat
from darkroom_trainer.data.decode import ImageError, decode
from darkroom_trainer.data.folder import EXTENSIONS
from darkroom_trainer.data.names import Names, printable
from darkroom_trainer.data.packed import INDEX, MANIFEST, Index, Manifest, Pack, Part
from darkroom_trainer.errors import ConfigError, DataError, StorageError, TrainerError

SHARD_BYTES = 2**30
_LEAST_SIZE = 16
_IN_FLIGHT = 64
"""Files that are in memory at once."""
_LINKS_FOLLOWED = 2
"""Levels on which a link to a folder is a folder: splits and classes, as the readers have it."""
_IMAGE_FOLDERS = {DataFormat.MASK_FOLDER: b"images", DataFormat.VOC: b"JPEGImages"}
"""Where a format has its images, if not everywhere."""


@dataclass(frozen=True)
class Stored:
    """A file as it is kept. pixels: see Index."""

    name: bytes
    data: bytes
    pixels: tuple[int, int, int, int] = (0, 0, 0, 0)


def write_pack(
    folder: Path,
    out: Path,
    *,
    size: int | None = None,
    format_: DataFormat = DataFormat.IMAGE_FOLDER,
    shard_bytes: int = SHARD_BYTES,
) -> Pack:
    """Pack `folder` into the new folder `out`, which has its name only when it is whole.

    size: images are kept decoded, RGB, their shorter side at most so many pixels; None: every file as it is. Raises
    DataError, StorageError or ConfigError with the name of what is in the way.
    """
    if size is not None and size < _LEAST_SIZE:
        raise ConfigError(f"--size {size}: at least {_LEAST_SIZE} pixels")
    if out.exists():
        raise ConfigError(f"{out} exists already: a pack is never changed, choose another name")
    if folder.resolve() in out.resolve().parents:
        raise ConfigError(f"{out} lies in {folder}: it would become part of itself")
    names = sorted(_every_file(os.fsencode(folder), b"", 0))
    if not names:
        raise DataError(f"{folder} has no files")
    partial = out.with_name(f".{out.name}.packing-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        _write(partial, _load_all(folder, names, size, format_), Names(names), size, shard_bytes)
        partial.rename(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}") from error
    return Pack(out)


def _every_file(folder: bytes, prefix: bytes, depth: int) -> Iterator[bytes]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if entry.is_dir(follow_symlinks=depth < _LINKS_FOLLOWED):
                    yield from _every_file(entry.path, prefix + entry.name + b"/", depth + 1)
                elif not entry.is_dir():
                    yield prefix + entry.name
    except OSError as error:
        raise DataError(f"{printable(folder)} cannot be read as a folder: {error.strerror}") from error


def _load_all(folder: Path, names: Sequence[bytes], size: int | None, format_: DataFormat) -> Iterator[Stored]:
    """In order; several at a time, for decoding takes its time."""
    root, remaining = os.fsencode(folder) + b"/", iter(names)
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:  # Pillow decodes without the GIL
        while some := list(islice(remaining, _IN_FLIGHT)):
            yield from pool.map(lambda name: _load(root, name, size if _is_image(name, format_) else None), some)


def _is_image(name: bytes, format_: DataFormat) -> bool:
    above = name.rpartition(b"/")[0].rpartition(b"/")[2]
    return name.lower().endswith(EXTENSIONS) and _IMAGE_FOLDERS.get(format_, above) == above


def _load(root: bytes, name: bytes, size: int | None) -> Stored:
    try:
        data = Path(os.fsdecode(root + name)).read_bytes()
    except OSError as error:
        raise DataError(f"{printable(root + name)} cannot be read: {error.strerror}") from error
    if size is None:
        return Stored(name, data)
    try:
        image = decode(BytesIO(data))
    except ImageError:  # kept as it is: a training counts it, as it would in the folder
        return Stored(name, data)
    small = _reduced(image, size)
    return Stored(name, small.tobytes(), (*small.size, *image.size))


def _reduced(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _write(folder: Path, files: Iterator[Stored], names: Names, size: int | None, shard_bytes: int) -> None:
    shards: list[Part] = []
    rows: list[tuple[int, int, int, tuple[int, int, int, int]]] = []
    following = next(files, None)
    while following:
        path = folder / f"shard-{len(shards):05}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            while following and (tar.offset == 0 or tar.offset + len(following.data) <= shard_bytes):
                offset = _add(tar, following)
                rows.append((len(shards), offset, len(following.data), following.pixels))
                following = next(files, None)
        shards.append(_part(path))
    index = Index(
        names,
        np.array([row[0] for row in rows], dtype=np.int32),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=np.int32),
    )
    (folder / INDEX).write_bytes(index.encode())
    manifest = Manifest(len(rows), size, _part(folder / INDEX), shards)
    (folder / MANIFEST).write_bytes(manifest.encode())


def _add(tar: tarfile.TarFile, file: Stored) -> int:
    """Append a file; where its bytes begin. The same files make the same archive: no times, no owners."""
    width, height, *_ = file.pixels
    name = os.fsdecode(file.name) + (f".{width}x{height}.rgb" if width else "")
    info = tarfile.TarInfo(name)
    info.size = len(file.data)
    tar.addfile(info, BytesIO(file.data))
    tar.members = []  # it would remember every file
    return tar.offset - math.ceil(len(file.data) / tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _part(path: Path) -> Part:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return Part(path.name, path.stat().st_size, digest)


def main(argv: Sequence[str]) -> int:
    """The exit code."""
    arguments = _parser().parse_args(argv)
    try:
        pack = write_pack(arguments.folder, arguments.out, size=arguments.size, format_=DataFormat(arguments.format))
    except TrainerError as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return int(error.exit_code)
    manifest = pack.manifest
    total = sum(shard.bytes for shard in manifest.shards) / 1e6
    print(f"{arguments.out}: {manifest.files} files in {len(manifest.shards)} shard(s), {total:.1f} MB")
    print(f"packSha256: {pack.sha256}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="darkroom-trainer pack",
        description="Put a data set's files into a few large ones, once for many trainings.",
    )
    parser.add_argument("folder", type=Path, help="what vision.data.path would name")
    parser.add_argument("out", type=Path, help="a new folder for the pack")
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="keep images decoded, their shorter side at most so long: nothing is left to decode, but more to read; "
        "1.15 times imageSize and more loses next to nothing",
    )
    parser.add_argument(
        "--format",
        choices=[str(format_) for format_ in DataFormat],
        default=str(DataFormat.IMAGE_FOLDER),
        help="vision.data.format: says with --size which files are images, and which are masks",
    )
    return parser
