"""What the frozen stages of a network make of each image, as files.

<folder>/<key>/<split>.bin    one row per draw, view after view, in the type that the network gave
<folder>/<key>/<split>.json   shape, type, how many rows are there, targets, unreadable files: written last
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from darkroom_trainer.errors import StorageError, is_full
from darkroom_trainer.files import replace_text
from darkroom_trainer.tasks.base import Batch, SampleRef

FORMAT = 1
"""Raised when rows would have another meaning."""


@dataclass(frozen=True)
class Features:
    """A split whose images are features already. rows: [views * samples, ...], mapped from the file."""

    rows: torch.Tensor
    targets: torch.Tensor
    corrupt: dict[int, str]
    seconds_per_row: float
    """Seconds of one process that a row took: reading the image, and the frozen stages."""

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, refs: Sequence[SampleRef]) -> Batch:
        """Epochs take turns with the views."""
        indices = torch.tensor([ref.index for ref in refs])
        views = len(self.rows) // len(self)
        rows = indices + len(self) * torch.tensor([ref.epoch % views for ref in refs])
        names = [self.corrupt[ref.index] for ref in refs if ref.index in self.corrupt]
        valid = torch.tensor([float(ref.index not in self.corrupt) for ref in refs])
        return Batch(self.rows[rows], self.targets[indices], valid, names, encoded=True)

    def batches(self, draws: Iterable[Sequence[SampleRef]]) -> Iterator[Batch]:
        """In place of a DataLoader: reading a row is cheaper than asking another process for it."""
        return map(self.read, draws)


@dataclass(frozen=True)
class Facts:
    """What the .json says. targets: -1 where not known yet; corrupt: names of unreadable files by index."""

    shape: list[int]
    dtype: str
    done: int
    seconds: float
    """Of all processes together, for the rows that are done."""
    targets: list[int]
    corrupt: dict[str, str]


class FeatureFile:
    """The two files of one split under one key."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self._rows, self._facts = folder / f"{split}.bin", folder / f"{split}.json"

    def facts(self) -> Facts | None:
        """None if there are none, or none that can be used."""
        try:
            content = json.loads(self._facts.read_text(encoding="utf-8"))
            facts = Facts(**content["features"]) if content["format"] == FORMAT else None
            size = math.prod(facts.shape) * getattr(torch, facts.dtype).itemsize if facts else -1
            return facts if self._rows.stat().st_size == size else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def note(self, facts: Facts) -> None:
        """Say what is there, after the rows themselves are on the disk; raises StorageError."""
        try:
            with self._rows.open("r+b") as file:
                os.fsync(file.fileno())
            replace_text(self._facts, json.dumps({"format": FORMAT, "features": asdict(facts)}))
        except OSError as error:
            raise StorageError(f"features could not be written to {self.folder}: {_why(error)}") from error

    def reserve(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """All rows, to be written. A full disk is a StorageError here, and would be a bus error on the mapped file."""
        size = math.prod(shape) * dtype.itemsize
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._rows.open("r+b" if self._rows.exists() else "w+b") as file:
                file.truncate(size)
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            with suppress(OSError):
                self._rows.unlink()
            raise StorageError(
                f"{size / 1e9:.2f} GB of features do not fit into {self.folder}: {_why(error)}"
            ) from error
        return torch.from_file(str(self._rows), shared=True, size=math.prod(shape), dtype=dtype).view(*shape)

    def open(self) -> Features:
        """Raises StorageError if the files are not whole."""
        facts = self.facts()
        if facts is None or facts.done != facts.shape[0]:
            raise StorageError(f"{self._rows} went away or was changed while it was in use")
        flat = torch.from_file(str(self._rows), size=math.prod(facts.shape), dtype=getattr(torch, facts.dtype))
        corrupt = {int(index): name for index, name in facts.corrupt.items()}
        return Features(flat.view(*facts.shape), torch.tensor(facts.targets), corrupt, facts.seconds / facts.done)


def _why(error: OSError) -> str:
    return "no space left on its volume" if is_full(error) else str(error.strerror)
