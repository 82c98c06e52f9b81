"""Clocks of nodes and controllers that are an hour off: what they wrote distorts nothing.

The operator's own clock is the API server's (tests/core/test_clock.py).
"""

from datetime import timedelta

import pytest

from darkroom_operator.core.conditions import parse_time, timestamp
from tests.core.world import World

HOUR = timedelta(hours=1)


def shifted(body, by: timedelta):
    """An object with every time but those of the API server itself by another clock."""
    if isinstance(body, list):
        return [shifted(item, by) for item in body]
    if not isinstance(body, dict):
        return body
    moments = ("lastTransitionTime", "startedAt", "finishedAt")
    return {k: timestamp(parse_time(v) + by) if k in moments else shifted(v, by) for k, v in body.items()}


class SkewedWorld(World):
    """Kubelets, scheduler and Job controller with a clock of their own."""

    def __init__(self, by: timedelta, **spec) -> None:
        super().__init__(**spec)
        self.by = by

    def facts(self):
        right = (self.jobs, self.pods)
        self.jobs, self.pods = ({k: shifted(v, self.by) for k, v in shelf.items()} for shelf in right)
        try:
            return super().facts()
        finally:
            self.jobs, self.pods = right


def live(by: timedelta) -> World:
    """Fails after 20 s of work, is started again after its back-off, succeeds after 30 s, and goes after its time to live."""
    world = SkewedWorld(by, ttlSecondsAfterFinished=100, restart={"backoffSeconds": 10}, numNodes=1)
    world.settle()
    for attempt, (seconds, code) in enumerate([(20, 70), (30, 0)], start=1):
        world.wait(5)
        world.run(f"flowers-{attempt}")
        world.settle()
        world.wait(seconds)
        world.end(f"flowers-{attempt}", 0, code)
        world.settle()
        world.wait(9)
        world.settle()
        world.wait(2)
        world.settle()
    return world


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_life_with_other_clocks(by):
    world, right = live(by), live(timedelta(0))
    assert world.created == right.created == ["Job/flowers-1", "Job/flowers-2"]
    assert (world.status["state"], world.status["restarts"]) == ("Complete", 1)
    times, expected = world.status["time"], right.status["time"]
    assert float(times["total"]) == pytest.approx(float(expected["total"]), abs=1)
    assert float(times["queued"]) <= float(expected["queued"])
    assert float(world.status["nodeHours"]) == pytest.approx(float(right.status["nodeHours"]), abs=10 / 3600)
    world.wait(100 - 12)
    world.settle()
    assert not world.gone
    world.wait(12)
    world.settle()
    assert world.gone
