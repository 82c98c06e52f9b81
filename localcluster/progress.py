"""One line for each step, with the seconds that it took."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[str], None]


class Steps:
    """Call it at the end of each step."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._first = self._last = time.monotonic()

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        self._report(f"{what:<44}{now - self._last:6.1f} s")
        self._last = now

    @property
    def total(self) -> float:
        return time.monotonic() - self._first
