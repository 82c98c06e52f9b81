"""What the end of a container's log says of its failure, for programs that write no termination message.

torchrun ends its log with a summary of its own (torch/distributed/elastic/multiprocessing/errors, ChildFailedError):

    Root Cause (first observed failure):
    [0]:
      time      : 2026-11-25_01:33:18
      host      : flowers-1-1
      rank      : 1 (local_rank: 0)
      exitcode  : -6 (pid: 9)  (SIGABRT)
      error_file: <N/A>
      traceback : Signal 6 (SIGABRT) received by PID 9
    ======================================================
"""

import re
from dataclasses import dataclass

_ROOT_CAUSE = "Root Cause (first observed failure):"
_FIELD = re.compile(r"^\s*(\w+)\s*:\s(.*)$")
_NO_TRACEBACK = "To enable traceback see"


@dataclass(frozen=True)
class LastWords:
    """rank: the global rank that failed first, where the log names it."""

    message: str = ""
    rank: int | None = None


def last_words(text: str) -> LastWords:
    """The root cause of torchrun's summary, or else the last line: where Python puts the error's class and message."""
    _, found, summary = text.rpartition(_ROOT_CAUSE)
    if found:
        return _of_torchrun(summary)
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    return LastWords(lines[-1] if lines else "")


def _of_torchrun(summary: str) -> LastWords:
    fields = {match[1]: match[2] for line in summary.splitlines() if (match := _FIELD.match(line))}
    rank = re.match(r"\d+", fields.get("rank", ""))
    told = fields.get("traceback", "").strip()
    if not told or told.startswith(_NO_TRACEBACK):  # known only to programs under torch's `record`
        told = f"a process ended with exit code {fields.get('exitcode', '?').split(' ')[0]}; its log has the cause"
    return LastWords(told, int(rank[0]) if rank else None)
