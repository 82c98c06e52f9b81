"""What can go wrong, in words that name the next step."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

_LINES_SHOWN = 20
_BYTES_READ = 16_384
_FRAME = re.compile(r"\s*$|\t|goroutine \d+ \[|created by |\S+\(.*\)$")
"""A line of the stack trace with which a Go program that panics ends its log: the cause stands above."""


class ClusterError(Exception):
    """Something that the reader can act on; the message stands alone, without a traceback."""


class StartError(ClusterError):
    """A component that ended or never became ready, with the last lines that it wrote."""

    def __init__(self, component: str, problem: str, log: Path) -> None:
        self.component = component
        super().__init__(f"{component} {problem}; the end of {log}:\n{tail(log)}")


def tail(log: Path) -> str:
    """The last lines of a log, a final stack trace left out, indented; only the end of a long file is read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _BYTES_READ))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"  (no log: {error.strerror})"
    lines = text.splitlines()
    frames = sum(1 for _ in itertools.takewhile(_FRAME.match, reversed(lines)))
    cause = lines[: len(lines) - frames] or lines
    return "\n".join(f"  {line}" for line in cause[-_LINES_SHOWN:]) or "  (the log is empty)"
