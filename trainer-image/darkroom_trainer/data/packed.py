"""A pack: the files of a data set in a few large ones, for volumes on which opening a small file is slow.

    pack.json           format, sizes and SHA-256 of the rest: its own SHA-256 names the whole content
    index.npz           name, shard, offset and length of each file, in the order of names
    shard-00000.tar     the files themselves, or their pixels: an ordinary tar archive, which `tar -xf` unpacks

A pack looks like the folder that it was made from, so the same readers list it, and the same samples come of it. Files are
read by `pread`, not through a mapping: a volume that fails answers with an error, where a mapping would end the process.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from darkroom_trainer.data.decode import Pixels, Source
from darkroom_trainer.data.names import Names
from darkroom_trainer.errors import DataError, StorageError

FORMAT = 1
"""Raised when a pack would be read in another way."""
MANIFEST, INDEX = "pack.json", "index.npz"


@dataclass(frozen=True)
class Part:
    """A file of the pack itself."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What pack.json says. size: shorter side of decoded images in pixels; None: all files are as they were."""

    files: int
    size: int | None
    index: Part
    shards: Sequence[Part]
    format: int = FORMAT

    def encode(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, file: Path) -> "Manifest":
        """Raises DataError for anything but a manifest of this format."""
        try:
            content = json.loads(data)
            found = content["format"]
            if found != FORMAT:
                raise DataError(
                    f"{file}: a pack of format {found!r}, this trainer reads format {FORMAT}: pack the data anew"
                )
            shards = [Part(**shard) for shard in content["shards"]]
            return cls(content["files"], content["size"], Part(**content["index"]), shards)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{file} is no manifest of a pack: {error!r}") from error


@dataclass(frozen=True)
class Index:
    """One row per file. shards: int32 [n]; offsets, lengths: int64 [n], in bytes.

    pixels: int32 [n, 4], width and height of what is stored, then of the file's own image; zeros where the file is stored
    as it was.
    """

    names: Names
    shards: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    pixels: np.ndarray

    def encode(self) -> bytes:
        buffer = BytesIO()
        blob, ends = self.names.arrays()
        np.savez(
            buffer,
            names=blob,
            ends=ends,
            shards=self.shards,
            offsets=self.offsets,
            lengths=self.lengths,
            pixels=self.pixels,
        )
        return buffer.getvalue()

    @classmethod
    def decode(cls, data: bytes) -> "Index":
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            names = Names.of_arrays(arrays["names"], arrays["ends"])
            return cls(names, *(arrays[name] for name in ("shards", "offsets", "lengths", "pixels")))

    def take(self, rows: np.ndarray, names: Names) -> "Index":
        """Some rows, whose names are given."""
        return Index(names, self.shards[rows], self.offsets[rows], self.lengths[rows], self.pixels[rows])


class Pack:
    """A pack that is whole, by its sizes and the index's digest. sha256: of the manifest."""

    def __init__(self, folder: Path, *, expected: str | None = None) -> None:
        """Raises DataError that names the file, if the pack isn't the `expected` one, or is damaged."""
        self.folder = folder
        data = _read(folder / MANIFEST)
        self.sha256 = sha256(data).hexdigest()
        if expected not in (None, self.sha256):
            raise DataError(
                f"data.packSha256 is {expected}, but {folder / MANIFEST} has {self.sha256}: it is a pack of other data"
            )
        self.manifest = Manifest.decode(data, folder / MANIFEST)
        for shard in self.manifest.shards:
            _check_size(folder, shard)
        _check_size(folder, self.manifest.index)
        data = _read(folder / INDEX)
        if sha256(data).hexdigest() != self.manifest.index.sha256:
            raise DataError(f"{folder / INDEX} is damaged, or of another pack: its SHA-256 is not what {MANIFEST} says")
        self.index = Index.decode(data)

    def files(self, rows: np.ndarray, names: Names) -> "PackedFiles":
        """Some of them, whose names are given."""
        return PackedFiles(self.folder, self.manifest, self.sha256, self.index.take(rows, names))

    def every_file(self) -> "PackedFiles":
        return PackedFiles(self.folder, self.manifest, self.sha256, self.index)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


def _check_size(folder: Path, part: Part) -> None:
    file = folder / part.name
    try:
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; it is part of a pack") from error
    if size != part.bytes:
        raise DataError(
            f"{file} has {size} bytes, the pack says {part.bytes}: it is truncated, or not copied to the end"
        )


class PackedFiles:
    """Files of a pack, by index. Shards are opened when they are first asked for, in each process by itself."""

    def __init__(self, folder: Path, manifest: Manifest, digest: str, index: Index) -> None:
        self._folder, self._manifest, self._digest, self._index = folder, manifest, digest, index
        self._descriptors: dict[int, int] = {}

    @property
    def names(self) -> Names:
        return self._index.names

    def path(self, index: int) -> bytes:
        """For a message."""
        return os.fsencode(self._folder) + b"/" + self.names.raw(index)

    def stamp(self, index: int) -> bytes:
        """What changes with the file's content."""
        return b"%s %d" % (self._digest.encode(), self._index.offsets[index])

    def open(self, index: int) -> Source:
        data = self.read(index)
        width, height, *full = self._index.pixels[index].tolist()
        return Pixels(data, (width, height), (full[0], full[1])) if width else BytesIO(data)

    def read(self, index: int) -> bytes:
        """Raises StorageError if the volume fails, DataError if the shard has become shorter."""
        shard, offset, length = (int(a[index]) for a in (self._index.shards, self._index.offsets, self._index.lengths))
        file = self._folder / self._manifest.shards[shard].name
        try:
            data = os.pread(self._descriptor(shard, file), length, offset)
        except OSError as error:
            raise StorageError(f"{file} cannot be read: {error.strerror}") from error
        if len(data) < length:
            raise DataError(f"{file} ends before {self.names[index]}: it was truncated while it was in use")
        return data

    def _descriptor(self, shard: int, file: Path) -> int:
        if shard not in self._descriptors:
            self._descriptors[shard] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptors[shard]

    def __getstate__(self) -> dict[str, Any]:
        """A descriptor means nothing in another process."""
        return self.__dict__ | {"_descriptors": {}}
