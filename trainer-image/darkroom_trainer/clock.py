"""Where the time went: every instant of a process's life lies in exactly one bucket, so the buckets sum to it."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from darkroom_api.report import TIME_BUCKETS

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since the machine's boot: one clock for all its processes, and the one of /proc/PID/stat."""
    return time.clock_gettime(_CLOCK)


_IMPORTED = now()
_FEW_WINDOWS = 5


def process_start(stat: Path = Path("/proc/self/stat")) -> float:
    """When this process began, on the clock of `now`, to 10 ms; where the kernel does not say, when this was imported."""
    try:
        ticks = int(stat.read_text().rpartition(")")[2].split()[19])  # the name in parentheses may hold anything
    except (OSError, ValueError, IndexError):
        return _IMPORTED
    started = ticks / os.sysconf("SC_CLK_TCK")
    # Sandboxes give zero or another clock: more than ten minutes between start and import is not believable.
    return started if max(0.0, _IMPORTED - 600) < started <= _IMPORTED else _IMPORTED


class Clock:
    """Seconds by bucket of TIME_BUCKETS since `start`.

    There is always one open bucket; `spend` opens another for a while. Nothing is ever outside, so the sum is the wall
    clock by construction. `turned` is called with the bucket whenever one is opened: a sign of life. `spent`: seconds
    before `start` that count too; they are kept as `carried`.
    """

    def __init__(
        self,
        start: float,
        *,
        bucket: str = "startup",
        now: Callable[[], float] = now,
        turned: Callable[[str], None] = lambda _: None,
        spent: Mapping[str, float] | None = None,
    ) -> None:
        self._now, self._turned = now, turned
        self.carried = dict(spent or {})
        self._totals = dict.fromkeys(TIME_BUCKETS, 0.0) | self.carried
        self._bucket, self._since = bucket, start
        self.start = start

    def switch(self, bucket: str, *, at: float | None = None) -> str:
        """Open `bucket`, now or at a time that has passed already; the bucket that was open."""
        at = self._now() if at is None else at
        previous = self._bucket
        self._totals[previous] += max(0.0, at - self._since)
        self._bucket, self._since = bucket, max(at, self._since)
        self._turned(bucket)
        return previous

    @contextmanager
    def spend(self, bucket: str) -> Iterator[None]:
        """Count the time inside as `bucket`."""
        previous = self.switch(bucket)
        try:
            yield
        finally:
            self.switch(previous)

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count up to `seconds` of `source` as `target`: for what can only be measured afterwards."""
        self.switch(self._bucket)
        seconds = min(max(seconds, 0.0), self._totals[source])
        self._totals[source] -= seconds
        self._totals[target] += seconds

    def seconds(self) -> dict[str, float]:
        """Seconds in each bucket until now."""
        self.switch(self._bucket)
        return dict(self._totals)


def tenths(values: Sequence[float]) -> tuple[float, float] | None:
    """What all but a tenth of the windows reached, and what only a tenth did; None while there are few."""
    if len(values) < _FEW_WINDOWS:
        return None
    low, *_, high = quantiles(values, n=10, method="inclusive")
    return low, high


class Throughput:
    """Images per second as the median of recent windows: one slow window (a neighbour, a page cache) changes nothing."""

    def __init__(self, windows: int = 31) -> None:
        self._rates: deque[float] = deque(maxlen=windows)
        self._first = True

    def add(self, images: float, seconds: float) -> None:
        """One window of training alone, without evaluation and checkpoints."""
        if images <= 0 or seconds <= 0:
            return
        if not self._first and len(self._rates) == 1 and self._warming:
            self._rates.clear()  # the first window holds allocations, kernel selection, cold caches
            self._warming = False
        self._rates.append(images / seconds)
        if self._first:
            self._first, self._warming = False, True

    @property
    def images_per_second(self) -> float | None:
        return median(self._rates) if self._rates else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The speeds that all but a tenth, and that only a tenth, of the windows reached; None while there are few."""
        return tenths(self._rates)


@dataclass(frozen=True)
class Eta:
    """Seconds to the end: at the present speed, at that of the best moments, at that of the worst."""

    seconds: float
    low: float | None = None
    high: float | None = None


def eta(images_left: float, throughput: Throughput, evaluation_seconds: float) -> Eta | None:
    """From the images and the evaluations that are left; None before there is a speed."""
    rate, spread = throughput.images_per_second, throughput.spread
    if not rate:
        return None
    low, high = (images_left / spread[1], images_left / spread[0]) if spread else (None, None)
    return Eta(*(None if left is None else left + evaluation_seconds for left in (images_left / rate, low, high)))
