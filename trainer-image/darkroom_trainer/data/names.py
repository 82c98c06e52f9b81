"""Names of very many files."""

from collections.abc import Iterable
from typing import Self

import numpy as np


class Names:
    """Many file names in two arrays: a forked worker reads them without touching a reference count per name.

    Indices run from 0; there are no negative ones.
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        names = list(names)
        self._blob = b"".join(names)
        lengths = np.fromiter(map(len, names), dtype=np.int64, count=len(names))
        self._ends = np.concatenate(([0], np.cumsum(lengths)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def raw(self, index: int) -> bytes:
        """The name as the file system has it."""
        return self._blob[self._ends[index] : self._ends[index + 1]]

    def __getitem__(self, index: int) -> str:
        """The name for a message."""
        return printable(self.raw(index))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 of all names one after the other, and int64 [n + 1] of where each begins and the last one ends."""
        return np.frombuffer(self._blob, dtype=np.uint8), self._ends

    @classmethod
    def of_arrays(cls, blob: np.ndarray, ends: np.ndarray) -> Self:
        """The inverse of `arrays`."""
        names = cls(())
        names._blob, names._ends = blob.tobytes(), ends
        return names


def printable(name: bytes) -> str:
    """A file name for a message: UTF-8, with other bytes escaped."""
    return name.decode("utf-8", "backslashreplace")
