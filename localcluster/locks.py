"""One writer at a time, across processes; the kernel frees the lock of a process that was killed."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file at path, waiting for whoever has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file stays: deleting it would let a third process lock a new file while a second waits for the old.
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
