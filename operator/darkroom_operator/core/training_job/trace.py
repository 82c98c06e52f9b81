"""A finished job's life as an OpenTelemetry trace: the job, its attempts, and in each attempt where its time went.

Everything follows from the stored status, the ids too: a trace that is sent again, by an operator that was restarted before it
could note that it had been sent, is the same trace.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from darkroom_api import names
from darkroom_api.v1alpha1.training_job_status import Attempt, TrainingJobStatus
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.training_job.failures import DISRUPTED, FAILED
from darkroom_operator.core.training_job.observe import stored_status, told_by
from darkroom_operator.core.types import Body

DUE = timedelta(days=1)
"""What ended earlier is not sent any more: when tracing is switched on, the past stays untold."""
PHASES = (
    *("queued", "imagePull", "startup", "rendezvous", "restore", "compile"),
    *("dataWait", "compute", "communication", "evaluation", "checkpoint", "lostWork", "other"),
)
"""Buckets of time in the order in which they are laid out; those from dataWait on alternate in a real attempt, and are sums."""
_SUMMED = frozenset(PHASES[PHASES.index("dataWait") :])
Attributes = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Span:
    """One span; ids as OpenTelemetry has them."""

    name: str
    span_id: int
    parent_id: int | None
    start: datetime
    end: datetime
    attributes: Attributes = field(default_factory=dict)
    error: str | None = None
    """Why it failed."""


@dataclass(frozen=True)
class Trace:
    """All spans of one job, the job itself first."""

    trace_id: int
    spans: tuple[Span, ...]


def trace_id(uid: str) -> int:
    """128 bits, from the job's UID alone."""
    return int.from_bytes(_digest(uid)[:16], "big")


def hexadecimal(trace: int) -> str:
    """As people and tools write a trace's id."""
    return f"{trace:032x}"


def is_due(body: Body, now: datetime) -> bool:
    """Whether its life is over and not told yet."""
    status = body.get("status") or {}
    end = parse_time(status.get("completionTime"))
    return bool(status.get("finished")) and "traceId" not in status and end is not None and now - end < DUE


def trace_of(body: Body) -> Trace:
    """Of a finished job."""
    meta, status = body["metadata"], stored_status(body)
    uid = meta["uid"]
    end = parse_time(status.completion_time) or _time(meta["creationTimestamp"])
    failed = status.state == "Failed"
    root = Span(
        name="TrainingJob",
        span_id=_span_id(uid),
        parent_id=None,
        start=min(_time(meta["creationTimestamp"]), end),
        end=end,
        attributes=_attributes(body, status),
        error=told_by(status)[1] if failed else None,
    )
    attempts = [span for attempt in status.attempts or [] for span in _of_attempt(uid, root, attempt)]
    return Trace(trace_id(uid), (root, *attempts))


def _of_attempt(uid: str, root: Span, attempt: Attempt) -> Iterator[Span]:
    start = _time(attempt.start_time)
    span = Span(
        name="attempt",
        span_id=_span_id(uid, attempt.number),
        parent_id=root.span_id,
        start=start,
        end=max(start, parse_time(attempt.end_time) or root.end),
        attributes={
            "darkroom.attempt.number": attempt.number,
            "darkroom.attempt.result": attempt.result,
            "darkroom.attempt.reason": attempt.reason or "",
            "k8s.job.name": attempt.job,
            "k8s.job.uid": attempt.uid,
            **({"k8s.node.name": attempt.node} if attempt.node else {}),
        },
        error=attempt.message or attempt.reason if attempt.result in (FAILED, DISRUPTED) else None,
    )
    yield span
    yield from _phases(uid, span, attempt)


def _phases(uid: str, parent: Span, attempt: Attempt) -> Iterator[Span]:
    """One after the other, so that they fill the attempt: how long each took is exact, where the summed ones lie is not."""
    at, times = parent.start, attempt.time or {}
    for phase in PHASES:
        seconds = float(times.get(phase, 0))
        if seconds <= 0:
            continue
        yield Span(
            name=phase,
            span_id=_span_id(uid, attempt.number, phase),
            parent_id=parent.span_id,
            start=at,
            end=at + timedelta(seconds=seconds),
            attributes={"darkroom.phase.summed": phase in _SUMMED},
        )
        at += timedelta(seconds=seconds)


def _attributes(body: Body, status: TrainingJobStatus) -> Attributes:
    meta = body["metadata"]
    known: dict[str, str | int | float | None] = {
        "k8s.namespace.name": meta["namespace"],
        "darkroom.training_job.name": meta["name"],
        "darkroom.training_job.uid": meta["uid"],
        "darkroom.tuning_sweep.name": meta.get("labels", {}).get(names.LABEL_SWEEP),
        "darkroom.profile": body["spec"].get("profile", "default"),
        "darkroom.state": status.state,
        "darkroom.reason": told_by(status)[0],
        "darkroom.attempts": status.attempt or 0,
        "darkroom.restarts": status.restarts or 0,
        "darkroom.disruptions": status.disruptions or 0,
        "darkroom.goodput": float(status.goodput) if status.goodput else None,
        "darkroom.node_hours": float(status.node_hours) if status.node_hours else None,
        "darkroom.gpu_hours": float(status.gpu_hours) if status.gpu_hours else None,
        "darkroom.cost": status.cost,
    }
    return {name: value for name, value in known.items() if value is not None}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _span_id(uid: str, *path: str | int) -> int:
    return int.from_bytes(_digest("/".join([uid, *map(str, path)]))[16:24], "big")


def _digest(text: str) -> bytes:
    return hashlib.sha256(f"darkroom.dev/{text}".encode()).digest()
