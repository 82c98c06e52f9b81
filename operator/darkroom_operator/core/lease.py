"""Who leads: one step of an election over a coordination.k8s.io/v1 Lease, as client-go takes it.

Nobody's clock is believed but one's own: another's lease is over when it has not *changed* for as long as it promises, by the
time at which each picture of it was first seen here. Times are local monotonic seconds; those in the Lease are for people.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from darkroom_operator.core.types import Body

Spec = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """Seconds. retry < renew < lease, so that a leader has given up before another begins."""

    lease: int = 15
    """Others keep off for this long after a sign of life."""
    renew: float = 10.0
    """A leader that could not renew for this long leads no more."""
    retry: float = 2.0
    """Between two looks, and between two renewals."""


@dataclass(frozen=True)
class Seen:
    """A Lease as read last."""

    spec: Body
    since: float
    """When it was first seen like this."""

    @property
    def holder(self) -> str:
        """Identity of who leads, or empty."""
        return self.spec.get("holderIdentity") or ""

    @property
    def expires(self) -> float:
        """When it is over unless it changes before."""
        return self.since + float(self.spec.get("leaseDurationSeconds") or 0)


@dataclass(frozen=True)
class Write:
    """Store this spec, on the condition that nobody else has stored one since: leading, if it works."""

    spec: Spec


@dataclass(frozen=True)
class Wait:
    """Somebody else leads: look again after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Lost:
    """Somebody else leads, and we thought that we did."""

    to: str


def see(before: Seen | None, body: Body, now: float) -> Seen:
    """The Lease as read now; what has not changed keeps its age, whoever edited its metadata."""
    spec = body.get("spec") or {}
    return before if before is not None and before.spec == spec else Seen(spec, now)


def next_step(
    seen: Seen | None, me: str, timing: Timing, now: float, clock: datetime, *, leading: bool
) -> Write | Wait | Lost:
    """What to do about the Lease; None: there is none. `clock` goes into it for people to read."""
    if seen is None:
        return Write(_spec(me, timing, clock, transitions=0))
    if seen.holder == me:
        return Write({**seen.spec, "leaseDurationSeconds": timing.lease, "renewTime": _micro_time(clock)})
    if seen.holder and leading:
        return Lost(seen.holder)
    if seen.holder and now < seen.expires:
        return Wait(min(timing.retry, seen.expires - now))
    return Write(_spec(me, timing, clock, transitions=(seen.spec.get("leaseTransitions") or 0) + 1))


def released(seen: Seen, clock: datetime) -> Spec:
    """The spec with which a leader steps down: the next one need not wait."""
    transitions = seen.spec.get("leaseTransitions") or 0
    return {"leaseDurationSeconds": 1, "renewTime": _micro_time(clock), "leaseTransitions": transitions}


def _spec(me: str, timing: Timing, clock: datetime, *, transitions: int) -> Spec:
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": timing.lease,
        "acquireTime": _micro_time(clock),
        "renewTime": _micro_time(clock),
        "leaseTransitions": transitions,
    }


def _micro_time(clock: datetime) -> str:
    return clock.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
