"""Events: repeats, similar ones, and the budget of an object."""

from datetime import timedelta

import pytest

from darkroom_operator.core.recorder import COMBINED, Recorder
from darkroom_operator.core.types import Event
from tests.core.world import START


def warning(note: str = "no room", reason: str = "Unschedulable") -> Event:
    return Event("Warning", reason, note)


def play(steps: list[tuple[float, Event]], limit: int = 2000) -> list[tuple[str, str, int]]:
    """What is written, as `create`, `count` or `nothing`, with note and count; seconds and event of each step."""
    recorder, found = Recorder(limit), []
    for number, (second, event) in enumerate(steps):
        write = recorder.next_write("uid", event, START + timedelta(seconds=second))
        if write is None:
            found.append(NOTHING)
            continue
        found.append(("count" if write.name else "create", write.event.note, write.count))
        if write.name is None:
            recorder.written("uid", write, f"event-{number}")
    return found


NOTHING = ("nothing", "", 0)
TEN = [("create", str(number), 1) for number in range(10)]
BURST = [("create", "no room", 1), *(("count", "no room", number) for number in range(2, 26))]


@pytest.mark.parametrize(
    ("steps", "written"),
    [
        pytest.param(
            [(0, warning()), (5, warning()), (600, warning())],
            [("create", "no room", 1), ("count", "no room", 2), ("count", "no room", 3)],
            id="a repeat is counted, and keeps the series going",
        ),
        pytest.param(
            [(0, warning()), (600, warning())],
            [("create", "no room", 1), ("create", "no room", 1)],
            id="after ten minutes it is news",
        ),
        pytest.param(
            [(0, warning("a")), (1, warning("b")), (2, warning("a"))],
            [("create", "a", 1), ("create", "b", 1), ("count", "a", 2)],
            id="other words are another event",
        ),
        pytest.param(
            [(0, warning(reason="Queued")), (0, warning(reason="Pending"))],
            [("create", "no room", 1)] * 2,
            id="another reason is another event",
        ),
        pytest.param(
            [(0, warning(str(number))) for number in range(12)],
            [*TEN, ("create", f"{COMBINED}10", 1), ("count", f"{COMBINED}10", 2)],
            id="the eleventh of its kind stands for the rest",
        ),
        pytest.param(
            [*((0, warning(str(number))) for number in range(10)), (1, warning("3"))],
            [*TEN, ("count", "3", 2)],
            id="a known one is counted where it is",
        ),
        pytest.param(
            [*((0, warning()) for _ in range(26)), (300, warning())],
            [*BURST, NOTHING, ("count", "no room", 27)],
            id="25 writes, then one in five minutes, with all that happened",
        ),
        pytest.param(
            [*((0, warning()) for _ in range(30)), (0, warning("over", "RestartsExhausted")), (0, warning())],
            [*BURST, *[NOTHING] * 5, ("create", "over", 1), NOTHING],
            id="a reason that is new is told in spite of it",
        ),
    ],
)  # fmt: skip
def test_what_is_written(steps, written):
    assert play(steps) == written


def test_an_event_that_is_gone_is_made_again_with_its_count():
    recorder = Recorder()
    first = recorder.next_write("uid", warning(), START)
    recorder.written("uid", first, "event-1")
    second = recorder.next_write("uid", warning(), START)
    assert second.name == "event-1"
    recorder.written("uid", second, None)
    third = recorder.next_write("uid", warning(), START)
    assert (third.name, third.count) == (None, 3)


def test_each_object_has_a_budget_of_its_own_and_the_memory_is_bounded():
    recorder = Recorder(limit=2)
    for uid in ("a", "b"):
        write = recorder.next_write(uid, warning(), START)
        assert write.name is None
        recorder.written(uid, write, f"event-of-{uid}")
    recorder.next_write("a", warning(), START)
    recorder.next_write("c", warning(), START)
    assert recorder.next_write("a", warning(), START).count == 3
    assert recorder.next_write("b", warning(), START).count == 1, "the one that was silent longest is forgotten"


def test_a_long_note_stays_within_what_the_api_server_takes():
    recorder = Recorder()
    notes = [f"{number}{'x' * 1022}" for number in range(10, 21)]
    writes = [recorder.next_write("uid", warning(note[:1024]), START) for note in notes]
    assert max(len(write.event.note) for write in writes) == 1024
