"""Whether one process holds up the others: what each needs for its own part of a step, compared.

In a step all wait for the slowest, so its length says nothing of who that is. What a process does before the gradients
are exchanged (its loader, its forward passes) it does alone.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from darkroom_api.v1alpha1.straggler import Straggler
from darkroom_trainer.clock import now
from darkroom_trainer.report import Reporter, decimal

_NOTABLE = 1.5
"""Ratio from which a process is a straggler: GPUs of one kind differ by a few percent, a throttled or shared one by much more."""
_PERSISTENT = 30
"""Intervals of about a second in which the same process must have been the straggler before it is said."""


@dataclass(frozen=True)
class Slowest:
    """The process that took longest, and its time as a multiple of the median of all."""

    rank: int
    ratio: float


class Stragglers:
    """Compares the processes' times, interval by interval."""

    def __init__(self) -> None:
        self._recent: deque[Slowest] = deque(maxlen=_PERSISTENT)
        self.slowest: Slowest | None = None
        self.told = False

    def add(self, seconds: Sequence[float]) -> bool:
        """Times of one interval by rank, 0 for who measured none; whether there is a persistent straggler to tell of."""
        measured = {rank: time for rank, time in enumerate(seconds) if time > 0}
        if len(measured) < 2:
            return False
        rank = max(measured, key=measured.__getitem__)
        others = median(time for other, time in measured.items() if other != rank)
        self._recent.append(Slowest(rank, measured[rank] / others))
        self.slowest = self._typical()
        persistent = self._persistent()
        news, self.told = persistent and not self.told, persistent
        return news

    def compare(self, seconds: Sequence[float], report: Reporter) -> None:
        """As `add`; into the log and the message."""
        news = self.add(seconds)
        found = self.slowest if self.told else None
        report.message.straggler = Straggler(rank=found.rank, ratio=decimal(found.ratio)) if found else None
        if news and found:
            text = f"rank {found.rank} takes {found.ratio} times as long as the median of the others: all of them wait for it"
            report.event("straggler", text, rank=found.rank, ratio=found.ratio)

    def _typical(self) -> Slowest:
        """Who was slowest most often, by the median of those intervals."""
        ranks = [one.rank for one in self._recent]
        rank = max(set(ranks), key=ranks.count)
        return Slowest(rank, round(median(one.ratio for one in self._recent if one.rank == rank), 2))

    def _persistent(self) -> bool:
        full = len(self._recent) == _PERSISTENT
        return full and len({one.rank for one in self._recent}) == 1 and min(o.ratio for o in self._recent) >= _NOTABLE


class Stopwatch:
    """Seconds that this process spent on its own part of steps, on the device's clock.

    On a GPU they are read when they are over, an interval late: nothing waits for a measurement.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._running: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Around what needs no other process."""
        if not self._cuda:
            began = now()
            yield
            self._seconds += now() - began
            return
        began_at, ended_at = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began_at.record()
        yield
        ended_at.record()
        self._running.append((began_at, ended_at))

    def read(self) -> float:
        """Since the last reading."""
        while self._running and self._running[0][1].query():
            began, ended = self._running.popleft()
            self._seconds += began.elapsed_time(ended) / 1000
        seconds, self._seconds = self._seconds, 0.0
        return seconds
