"""A keyed work queue as client-go's: de-duplicated, one worker per key at a time, back-off with jitter, delayed adds.

The metrics carry client-go's names, so dashboards for Go controllers read them.
"""

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from darkroom_operator.shell.metrics import TRAINING_JOBS, Metrics

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
BASE_SECONDS, CAP_SECONDS = 0.2, 300.0


class KeyedQueue(Generic[K]):
    """Keys to be worked on. `work(key)` is never run twice at once for one key; an add meanwhile runs it again afterwards.

    Time is the event loop's, so a test may bring a loop whose clock it turns.
    """

    def __init__(
        self, work: Callable[[K], Awaitable[None]], metrics: Metrics, *, workers: int = 8, name: str = TRAINING_JOBS
    ) -> None:
        self._work, self._metrics, self._workers = work, metrics.queue(name), workers
        self.name = name
        self._ready: asyncio.PriorityQueue[tuple[bool, int, K]] = asyncio.PriorityQueue()
        self._met: set[K] = set()
        self._queued: dict[K, float] = {}
        self._active: dict[K, float] = {}
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._alarm = asyncio.Event()
        self._idle = asyncio.Event()
        self._closed = False

    def add(self, key: K) -> None:
        """Work on it as soon as a worker is free. Adding a key that waits already changes nothing."""
        if self._closed or key in self._queued or key in self._again:
            return
        self._metrics.adds.inc()
        if key in self._active:
            self._again.add(key)
            return
        self._queued[key] = _now()
        self._line_up(key)
        self._metrics.depth.set(len(self._queued))

    def add_after(self, key: K, seconds: float) -> None:
        """Work on it in `seconds`, unless an earlier time is set; a run that begins before then takes its place."""
        if seconds <= 0:
            self.add(key)
            return
        due = _now() + seconds
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._alarm.set()

    def add_failed(self, key: K) -> None:
        """Work on it after the key's back-off: doubled at each failure in a row, up to five minutes, with jitter."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._metrics.retries.inc()
        seconds = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(count, 20))
        self.add_after(key, seconds * random.uniform(0.8, 1.0))  # noqa: S311 - spreads retries

    def forget(self, key: K) -> None:
        """The last try went well: the back-off starts anew."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """The object is gone: another one of its name is a new one."""
        self.forget(key)
        self._met.discard(key)

    def _line_up(self, key: K) -> None:
        """Keys that nobody has worked on yet come first: that a job starts matters more than that another one's news show."""
        self._ready.put_nowait((key in self._met, next(self._order), key))

    def running(self) -> list[float]:
        """For how many seconds each key that is worked on now has been."""
        now = _now()
        return [now - began for began in self._active.values()]

    async def run(self) -> None:
        """Work for ever; cancelling it ends the work that is under way."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wake())
            for _ in range(self._workers):
                group.create_task(self._worker())

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, and wait for the work that is under way, at most `seconds`."""
        self._closed = True
        self._idle.clear()
        if self._active:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)

    async def _wake(self) -> None:
        """Move keys whose time has come to the ready ones."""
        while True:
            now = _now()
            while self._heap and self._heap[0][0] <= now:
                due, _, key = heapq.heappop(self._heap)
                if self._due.get(key) == due:  # otherwise another time took its place
                    del self._due[key]
                    self.add(key)
            self._alarm.clear()
            wait = self._heap[0][0] - now if self._heap else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._alarm.wait(), wait)

    async def _worker(self) -> None:
        while True:
            _, _, key = await self._ready.get()
            queued = self._queued.pop(key)
            self._metrics.depth.set(len(self._queued))
            if self._closed:
                continue
            self._met.add(key)
            self._due.pop(key, None)  # this run sets the next time itself
            began = self._active[key] = _now()
            self._metrics.wait.observe(began - queued)
            try:
                await self._work(key)
            except Exception:  # a bug in one job must not stop the others
                log.exception("reconcile failed; it is tried again", extra={"object": key})
                self.add_failed(key)
            finally:
                self._done(key, began)

    def _done(self, key: K, began: float) -> None:
        del self._active[key]
        self._metrics.work.observe(_now() - began)
        if not self._active:
            self._idle.set()
        if key in self._again:
            self._again.discard(key)
            self._queued[key] = _now()  # counted when it was added
            self._line_up(key)
            self._metrics.depth.set(len(self._queued))


def _now() -> float:
    return asyncio.get_running_loop().time()
