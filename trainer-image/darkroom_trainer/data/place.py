"""Where a data set lies: a folder, or a pack that looks like one."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import numpy as np

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.data.decode import Source
from darkroom_trainer.data.names import Names, printable
from darkroom_trainer.data.packed import MANIFEST, Pack, PackedFiles
from darkroom_trainer.errors import DataError


class Files(Protocol):
    """The files of a split, by index."""

    @property
    def names(self) -> Names: ...
    def path(self, index: int) -> bytes:
        """Whole, for a message."""
        ...

    def open(self, index: int) -> Source:
        """What `decode` takes. Raises StorageError if the volume is what fails."""
        ...

    def stamp(self, index: int) -> bytes:
        """What changes with the file's content; OSError if it cannot be told."""
        ...


class FolderFiles:
    """Files below a folder."""

    def __init__(self, root: Path, names: Names) -> None:
        self._root, self.names = os.fsencode(root) + b"/", names

    def path(self, index: int) -> bytes:
        return self._root + self.names.raw(index)

    def open(self, index: int) -> Source:
        return self.path(index)

    def stamp(self, index: int) -> bytes:
        """Size, and when it was changed."""
        file = os.stat(self.path(index))  # noqa: PTH116 - a million of them
        return b"%d %d" % (file.st_size, file.st_mtime_ns)


@dataclass(frozen=True)
class Entry:
    """What os.scandir gives, of a pack. A name or path is relative to the pack."""

    name: bytes
    path: bytes
    folder: bool

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 - a pack has no links
        return self.folder


class Tree:
    """Folders of a pack, by their names without a slash at the end; the top one is b""."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.files = pack.every_file()
        self._rows: dict[bytes, int] = {}
        self._folders: dict[bytes, list[Entry]] = {b"": []}
        for row in range(len(self.files.names)):
            name = self.files.names.raw(row)
            self._rows[name] = row
            self._enter(name, folder=False)

    def _enter(self, name: bytes, *, folder: bool) -> None:
        above, _, last = name.rpartition(b"/")
        if above not in self._folders:
            self._folders[above] = []
            self._enter(above, folder=True)
        self._folders[above].append(Entry(last, name, folder))

    def files_of(self, names: Names) -> PackedFiles:
        """Those of a split, in its order."""
        rows = np.array([self._rows[names.raw(index)] for index in range(len(names))], dtype=np.int64)
        return self.pack.files(rows, names)

    def scandir(self, folder: bytes) -> AbstractContextManager[Iterator[Entry]]:
        if folder not in self._folders:
            code = errno.ENOTDIR if folder in self._rows else errno.ENOENT
            raise OSError(code, os.strerror(code))
        return nullcontext(iter(self._folders[folder]))

    def is_dir(self, name: bytes) -> bool:
        return name in self._folders

    def is_file(self, name: bytes) -> bool:
        return name in self._rows

    def read(self, name: bytes) -> bytes:
        if name not in self._rows:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.files.read(self._rows[name])


class PackPath:
    """As much of pathlib.Path as the readers of data sets need, inside a pack."""

    def __init__(self, tree: Tree, inner: bytes = b"") -> None:
        self.tree, self.inner = tree, inner

    def __truediv__(self, name: str) -> "PackPath":
        parts = [part for part in (*self.inner.split(b"/"), *os.fsencode(name).split(b"/")) if part]
        return PackPath(self.tree, b"/".join(parts))

    def __str__(self) -> str:
        return f"{self.tree.pack.folder}/{printable(self.inner)}".rstrip("/")

    def __lt__(self, other: "PackPath") -> bool:
        return self.inner < other.inner

    @property
    def name(self) -> str:
        return os.fsdecode(self.inner.rpartition(b"/")[2])

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    def is_dir(self) -> bool:
        return self.tree.is_dir(self.inner)

    def is_file(self) -> bool:
        return self.tree.is_file(self.inner)

    def exists(self) -> bool:
        return self.is_dir() or self.is_file()

    def read_bytes(self) -> bytes:
        return self.tree.read(self.inner)

    def read_text(self, encoding: str) -> str:
        return self.read_bytes().decode(encoding)

    def glob(self, pattern: str) -> Iterator["PackPath"]:
        """Of the files in this folder alone."""
        with self.tree.scandir(self.inner) as entries:
            for entry in entries:
                if not entry.folder and fnmatchcase(os.fsdecode(entry.name), pattern):
                    yield PackPath(self.tree, entry.path)


Place = Path | PackPath


def open_place(config: TrainerConfig) -> Place:
    """The data set that `spec.vision.data` names; raises DataError as `Pack` does."""
    data = config.vision.data
    folder, expected = Path(config.data_dir, data.path.lstrip("/")), data.pack_sha256
    if (folder / MANIFEST).is_file():
        return PackPath(Tree(Pack(folder, expected=expected)))
    if expected:
        raise DataError(f"data.packSha256 is given, but {folder} is no pack: it has no {MANIFEST}")
    return folder


def files_of(root: Place, names: Names) -> Files:
    """The files of these names, in this order."""
    return root.tree.files_of(names) if isinstance(root, PackPath) else FolderFiles(root, names)


def scanner(place: Place) -> tuple[Callable[[bytes], AbstractContextManager[Iterator]], bytes]:
    """What lists a folder, and the folder as it wants it."""
    if isinstance(place, PackPath):
        return place.tree.scandir, place.inner
    return os.scandir, os.fsencode(place)
