"""The election's decisions as a table, and its one promise under every schedule: never two leaders."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from darkroom_operator.core.lease import Lost, Seen, Timing, Wait, Write, next_step, released, see

CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
NOW = "2026-01-01T00:00:00.000000Z"
TIMING = Timing(lease=15, renew=10.0, retry=2.0)
FRESH = {"holderIdentity": "me", "leaseDurationSeconds": 15, "acquireTime": NOW, "renewTime": NOW}


def held(by: str, *, since: float, seconds: int = 15, transitions: int = 3) -> Seen:
    """A lease by somebody whose clock is a year ahead, which must not matter."""
    spec = {
        "holderIdentity": by,
        "leaseDurationSeconds": seconds,
        "acquireTime": "2027-01-01T00:00:00.000000Z",
        "renewTime": "2027-01-01T00:00:00.000000Z",
        "leaseTransitions": transitions,
    }
    return Seen(spec, since)


@pytest.mark.parametrize(
    ("seen", "leading", "expected"),
    [
        pytest.param(None, False, Write({**FRESH, "leaseTransitions": 0}), id="there is none: make it"),
        pytest.param(held("", since=100.0), False, Write({**FRESH, "leaseTransitions": 4}), id="given away: take it"),
        pytest.param(Seen({}, 100.0), False, Write({**FRESH, "leaseTransitions": 1}), id="an empty one: take it"),
        pytest.param(held("other", since=99.0), False, Wait(2.0), id="another's, fresh: look again"),
        pytest.param(held("other", since=86.0), False, Wait(1.0), id="another's, nearly over: look at its end"),
        pytest.param(
            held("other", since=85.0), False, Write({**FRESH, "leaseTransitions": 4}), id="unchanged too long: take it"
        ),
        pytest.param(held("other", since=85.0, seconds=60), False, Wait(2.0), id="its own duration counts, not ours"),
        pytest.param(
            held("me", since=50.0),
            True,
            Write({**held("me", since=0).spec, "renewTime": NOW}),
            id="ours: renew it, however old our picture is",
        ),
        pytest.param(
            held("me", since=100.0),
            False,
            Write({**held("me", since=0).spec, "renewTime": NOW}),
            id="ours, but the answer to our write got lost",
        ),
        pytest.param(held("other", since=100.0), True, Lost("other"), id="somebody took it from us"),
        pytest.param(held("other", since=0.0), True, Lost("other"), id="and let it run out: still lost"),
        pytest.param(None, True, Write({**FRESH, "leaseTransitions": 0}), id="deleted under us: make it again"),
    ],
)
def test_next_step(seen, leading, expected):
    assert next_step(seen, "me", TIMING, 100.0, CLOCK, leading=leading) == expected


def test_what_does_not_change_ages_from_when_it_was_first_seen():
    body = {"metadata": {"resourceVersion": "1"}, "spec": held("other", since=0).spec}
    first = see(None, body, 10.0)
    relabelled = body | {"metadata": {"resourceVersion": "2", "labels": {"a": "b"}}}
    assert see(first, relabelled, 20.0) == first
    renewed = body | {"spec": {**body["spec"], "renewTime": "an hour ago"}}
    assert see(first, renewed, 20.0).since == 20.0


def test_released_is_free_at_once():
    spec = released(held("me", since=0), CLOCK)
    assert isinstance(next_step(Seen(spec, 100.0), "other", TIMING, 100.0, CLOCK, leading=False), Write)


@dataclass
class Server:
    """Optimistic concurrency, as the API server has it."""

    spec: dict[str, Any] | None = None
    version: int = 0

    def put(self, spec: dict[str, Any], version: int) -> bool:
        if version != self.version:
            return False
        self.spec, self.version = spec, self.version + 1
        return True


@dataclass
class Candidate:
    """One process: its clock has an offset of its own, and between any two lines it may be paused."""

    name: str
    offset: float
    seen: Seen | None = None
    until: float | None = None
    ended: bool = False
    pending: tuple[float, dict[str, Any], int] | None = None

    def leads(self, time: float) -> bool:
        return not self.ended and self.until is not None and time + self.offset < self.until

    def act(self, server: Server, time: float, move: str) -> None:
        now = time + self.offset
        if self.until is not None and now >= self.until:
            self.ended = True  # the process exits; another takes its place in a new test
        if self.ended:
            return
        if move == "send" and self.pending:
            began, spec, version = self.pending
            self.pending = None
            if server.put(spec, version):
                self.until = began + TIMING.renew
        elif move == "look":
            self.seen = see(self.seen, {"spec": server.spec}, now) if server.spec is not None else None
            clock = CLOCK + timedelta(seconds=now)
            step = next_step(self.seen, self.name, TIMING, now, clock, leading=self.until is not None)
            self.ended = isinstance(step, Lost)
            self.pending = (now, step.spec, server.version) if isinstance(step, Write) else None


SUCCESSION = [(0, "look", 0.0), (0, "send", 0.0), (1, "look", 0.0), (1, "look", 15.0), (1, "send", 0.0)]
"""The earliest moment at which another may begin."""


@example(offsets=[0.0, 0.0, 0.0], moves=SUCCESSION)
@settings(max_examples=300)
@given(
    offsets=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
    moves=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["look", "send"]), st.sampled_from((0.0, 0.5, 2.0, 7.5, 15.0))),
        min_size=30,
        max_size=60,
    ),
)
def test_never_two_leaders(offsets, moves):
    """Whatever the clocks say, whoever is paused between looking and writing, and for how long."""
    server, time = Server(), 0.0
    candidates = [Candidate(str(number), offset) for number, offset in enumerate(offsets)]
    for who, move, pause in moves:
        time += pause
        candidates[who].act(server, time, move)
        assert sum(candidate.leads(time) for candidate in candidates) <= 1
