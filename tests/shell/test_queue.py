"""The work queue: promises that hold whatever is added when, and however long work takes."""

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom_operator.shell.metrics import Metrics
from darkroom_operator.shell.queue import BASE_SECONDS, CAP_SECONDS, KeyedQueue
from tests.shell.virtual_clock import run

KEYS = st.sampled_from("abc")
SECONDS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 20.0])


@dataclass
class Diary:
    """What work was done when."""

    seconds: float = 0.0
    fail: int = 0
    begun: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    active: set[str] = field(default_factory=set)
    most: int = 0

    async def work(self, key: str) -> None:
        assert key not in self.active, "two at once for one key"
        self.active.add(key)
        self.most = max(self.most, len(self.active))
        self.begun[key].append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.seconds)
            if len(self.begun[key]) <= self.fail:
                raise RuntimeError("as the test wants it")
        finally:
            self.active.discard(key)


async def played(queue: KeyedQueue[str], script: list[tuple[float, str, float]]) -> list[tuple[float, str, float]]:
    """Carry out (pause, key, delay) one after the other, then let everything settle; returns (added at, key, delay)."""
    loop, told = asyncio.get_running_loop(), []
    runner = asyncio.create_task(queue.run())
    for pause, key, delay in script:
        await asyncio.sleep(pause)
        told.append((loop.time(), key, delay))
        queue.add_after(key, delay)
    await asyncio.sleep(10_000)
    runner.cancel()
    await asyncio.wait({runner})
    return told


@settings(max_examples=150)
@given(st.lists(st.tuples(SECONDS, KEYS, SECONDS), max_size=25), SECONDS, st.integers(1, 3))
def test_nothing_is_lost_and_nothing_runs_twice_at_once(script, seconds, workers):
    diary = Diary(seconds=seconds)

    async def main() -> None:
        told = await played(KeyedQueue(diary.work, Metrics(), workers=workers), script)
        assert diary.most <= workers
        for added, key, delay in told:
            due = added + delay
            waits = seconds * 2 * len(script)  # for workers that are busy
            assert any(added <= begun <= due + waits + 0.01 for begun in diary.begun[key]), (key, added, delay)
        for key, begun in diary.begun.items():
            assert len(begun) <= sum(1 for _, name, _ in told if name == key), "work that nobody asked for"

    run(main())


@settings(max_examples=50)
@given(st.lists(SECONDS.filter(bool), min_size=1, max_size=6))
def test_the_earliest_time_counts(delays):
    diary = Diary()
    run(played(KeyedQueue(diary.work, Metrics()), [(0.0, "a", delay) for delay in delays]))
    assert diary.begun["a"] == [pytest.approx(min(delays), abs=0.01)]


def test_a_burst_is_one_piece_of_work_and_one_more_if_it_came_meanwhile():
    diary = Diary(seconds=5.0)
    run(played(KeyedQueue(diary.work, Metrics()), [(0.0, "a", 0.0)] * 10 + [(0.1, "a", 0.0)] * 10))
    assert [round(at) for at in diary.begun["a"]] == [0, 5]


def test_a_failing_key_waits_longer_each_time_but_never_more_than_five_minutes():
    diary = Diary(fail=14)
    run(played(KeyedQueue(diary.work, Metrics()), [(0.0, "a", 0.0)]))
    gaps = [after - before for before, after in itertools.pairwise(diary.begun["a"])]
    assert len(gaps) == 14
    for number, gap in enumerate(gaps, start=1):
        top = min(CAP_SECONDS, BASE_SECONDS * 2**number)
        assert 0.8 * top - 0.01 <= gap <= top + 0.01


def test_a_success_makes_the_back_off_start_anew():
    diary = Diary(fail=6)
    queue = KeyedQueue(diary.work, Metrics())

    async def work(key: str) -> None:
        await diary.work(key)
        queue.forget(key)

    queue._work = work

    async def main() -> None:
        await played(queue, [(0.0, "a", 0.0)])
        diary.fail = 100
        before = len(diary.begun["a"])
        runner = asyncio.create_task(queue.run())
        queue.add("a")
        await asyncio.sleep(1.0)
        runner.cancel()
        await asyncio.wait({runner})
        assert len(diary.begun["a"]) >= before + 2, "the first retry comes within half a second"

    run(main())


def test_an_event_ends_the_wait_of_a_failing_key():
    diary = Diary(fail=10)
    script = [(0.0, "a", 0.0), (150.0, "a", 0.0)]
    run(played(KeyedQueue(diary.work, Metrics()), script))
    assert any(at == pytest.approx(150.0, abs=0.01) for at in diary.begun["a"])


def test_drain_finishes_what_is_under_way_and_begins_nothing():
    diary = Diary(seconds=4.0)

    async def main() -> None:
        queue = KeyedQueue(diary.work, Metrics(), workers=2)
        runner = asyncio.create_task(queue.run())
        for key in "abcdef":
            queue.add(key)
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        await queue.drain(10.0)
        queue.add("g")
        assert asyncio.get_running_loop().time() - began == pytest.approx(3.0, abs=0.1)
        await asyncio.sleep(30.0)
        assert set(diary.begun) == {"a", "b"}
        runner.cancel()
        await asyncio.wait({runner})

    run(main())


def test_drain_gives_up_on_work_that_hangs():
    diary = Diary(seconds=1e6)

    async def main() -> None:
        queue = KeyedQueue(diary.work, Metrics())
        runner = asyncio.create_task(queue.run())
        queue.add("a")
        await asyncio.sleep(1.0)
        await queue.drain(10.0)
        assert queue.running() == [pytest.approx(11.0, abs=0.1)]
        runner.cancel()
        await asyncio.wait({runner})

    run(main())


def test_the_metrics_are_client_gos():
    metrics = Metrics()
    diary = Diary(seconds=2.0, fail=1)
    run(played(KeyedQueue(diary.work, metrics), [(0.0, "a", 0.0)] * 5))
    read = metrics.registry.get_sample_value
    label = {"name": "trainingjobs"}
    assert read("workqueue_adds_total", label) == 2  # the first, and the retry
    assert read("workqueue_retries_total", label) == 1
    assert read("workqueue_depth", label) == 0
    assert read("workqueue_work_duration_seconds_sum", label) == pytest.approx(4.0, abs=0.01)


def test_a_key_that_is_new_does_not_wait_for_news_of_the_others():
    order: list[str] = []

    async def work(key: str) -> None:
        order.append(key)
        await asyncio.sleep(1)

    async def main() -> None:
        queue = KeyedQueue(work, Metrics(), workers=1)
        runner = asyncio.create_task(queue.run())
        for keys in ("ab", "abc"):
            for key in keys:
                queue.add(key)
            await asyncio.sleep(10)
        queue.drop("a")
        for key in "ba":
            queue.add(key)
        await asyncio.sleep(10)
        runner.cancel()
        await asyncio.wait({runner})

    run(main())
    assert order == ["a", "b", "c", "a", "b", "a", "b"]
