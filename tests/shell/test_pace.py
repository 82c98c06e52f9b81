"""How often a pod may report."""

from darkroom_operator.shell.reports import BURST, Pace


class Clock:
    """Turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_one_a_second_and_each_pod_by_itself():
    clock = Clock()
    pace = Pace(clock)
    assert [pace.allows("a") for _ in range(12)] == [True] * int(BURST) + [False] * 2
    assert pace.allows("b")
    clock.now += 1.0
    assert [pace.allows("a"), pace.allows("a")] == [True, False]
    clock.now += 3600
    assert [pace.allows("a") for _ in range(12)] == [True] * int(BURST) + [False] * 2


def test_a_pod_that_hammers_still_gets_through_now_and_then():
    clock = Clock()
    pace = Pace(clock)
    allowed = 0
    for _ in range(1000):
        allowed += pace.allows("a")
        clock.now += 0.25
    assert abs(allowed - 250 - BURST) <= 1


def test_pods_that_are_silent_are_forgotten():
    clock = Clock()
    pace = Pace(clock)
    for number in range(1000):
        pace.allows(f"pod-{number}")
    clock.now += BURST + 1
    pace.allows("last")
    assert list(pace._buckets) == ["last"]
