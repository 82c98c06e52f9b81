"""What can go wrong, in words that name the next step."""

from __future__ import annotations

from pathlib import Path

_LINES_SHOWN = 20
_BYTES_READ = 16_384


class ClusterError(Exception):
    """Something that the reader can act on; the message stands alone, without a traceback."""


class StartError(ClusterError):
    """A component that ended or never became ready, with the last lines that it wrote."""

    def __init__(self, component: str, problem: str, log: Path) -> None:
        self.component = component
        super().__init__(f"{component} {problem}; the end of {log}:\n{tail(log)}")


def tail(log: Path) -> str:
    """The last lines of a log, indented; logs grow large, so only the end of the file is read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _BYTES_READ))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"  (no log: {error.strerror})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-_LINES_SHOWN:]) or "  (the log is empty)"
