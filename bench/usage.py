"""What a process uses, and what it says on /metrics while it works."""

import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.operator_process import OperatorProcess

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Since the process began."""

    cpu_seconds: float
    rss_mib: float
    """The most that it ever had."""


def usage(operator: OperatorProcess) -> Usage:
    """Of the operator."""
    if operator.process is None:
        raise ValueError("the operator does not run")
    return usage_of(operator.process.pid)


def usage_of(pid: int) -> Usage:
    """Of any process."""
    proc = Path(f"/proc/{pid}")
    fields = (proc / "stat").read_text().rsplit(")", 1)[1].split()
    peak = re.search(r"VmHWM:\s+(\d+) kB", (proc / "status").read_text())
    return Usage(sum(map(int, fields[11:13])) / _TICKS, round(int(peak[1]) / 1024, 1) if peak else 0.0)


class Sampler:
    """Looks at /metrics twice a second, for gauges that come and go."""

    def __init__(self, operator: OperatorProcess) -> None:
        self._operator, self._done, self._pages = operator, threading.Event(), [""]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def most(self, name: str) -> float:
        """The largest value of a gauge."""
        pattern = re.compile(rf'^{name}\{{name="trainingjobs"\}} (\S+)$', re.MULTILINE)
        return max((float(value) for page in self._pages for value in pattern.findall(page)), default=0.0)

    def _run(self) -> None:
        while not self._done.wait(0.5):
            self._pages.append(self._operator.fetch("/metrics")[1])
