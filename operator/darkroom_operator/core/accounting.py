"""Where the time and the money went: pure arithmetic over attempts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from darkroom_api.report import TerminationMessage
from darkroom_api.v1alpha1.training_job_status import Attempt, TimeSpent
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.types import Body

BUCKETS = tuple(name for name in TimeSpent.model_fields if name not in {"total", "saved"})
WIRE_BUCKETS = tuple(str(TimeSpent.model_fields[name].alias) for name in BUCKETS)
"""The same as the stored status names them."""
_FROM_TRAINER = {
    "startup": "startup",
    "rendezvous": "rendezvous",
    "compile": "compile",
    "dataWait": "data_wait",
    "compute": "compute",
    "communication": "communication",
    "evaluation": "evaluation",
    "checkpoint": "checkpoint",
    "restore": "restore",
}
_WORK = ("data_wait", "compute", "communication")
"""What a step is made of: lost, if the step was not saved."""


@dataclass(frozen=True)
class Span:
    """One attempt's life, as node 0 saw it."""

    start: datetime
    scheduled: datetime | None
    running: datetime | None
    end: datetime
    report: TerminationMessage | None
    finished: bool
    """The training ended well: nothing was lost."""


def spent(span: Span) -> dict[str, float]:
    """Seconds by bucket of one attempt; they sum to its wall clock.

    What the trainer did not account for is `lost_work` if the attempt died without a word, else `other`.
    """
    wall = max(0.0, (span.end - span.start).total_seconds())
    queued = _seconds(span.start, span.scheduled or span.end)
    pull = _seconds(span.scheduled, span.running or span.end) if span.scheduled else 0.0
    times = dict.fromkeys(BUCKETS, 0.0) | {
        "queued": min(queued, wall),
        "image_pull": min(pull, max(0.0, wall - queued)),
    }
    room = max(0.0, wall - times["queued"] - times["image_pull"])
    said = _said(span.report)
    scale = min(1.0, room / total) if (total := sum(said.values())) else 0.0
    times |= {name: seconds * scale for name, seconds in said.items()}
    _mark_lost(times, span)
    times["other" if span.report or span.finished else "lost_work"] += max(0.0, wall - sum(times.values()))
    return times


def _said(report: TerminationMessage | None) -> dict[str, float]:
    if report is None:
        return {}
    return {ours: report.time.get(theirs, 0.0) for theirs, ours in _FROM_TRAINER.items()}


def _mark_lost(times: dict[str, float], span: Span) -> None:
    """Move the share of the steps after the last checkpoint to `lost_work`."""
    report = span.report
    if report is None or span.finished:
        return
    done = report.step - (report.resumed_step or 0)
    kept = (report.checkpoint_step or 0) - (report.resumed_step or 0)
    share = min(1.0, max(0.0, 1.0 - kept / done)) if done > 0 else 0.0
    for name in _WORK:
        lost = times[name] * share
        times[name] -= lost
        times["lost_work"] += lost


def told(times: Mapping[str, float]) -> dict[str, str]:
    """Seconds of one attempt by bucket, as its record has them."""
    return {wire: _text(times[name]) for name, wire in zip(BUCKETS, WIRE_BUCKETS, strict=True) if times[name] >= _LEAST}


_LEAST = 0.001
"""Seconds that a status can tell from nothing."""
LONGEST = 9_999_999_999.0
"""Seconds that fit into a status: three centuries, so what reaches it was no measurement."""


def add(old: TimeSpent | None, new: dict[str, float], *, pause: float = 0.0, saved: float | None = None) -> TimeSpent:
    """Running totals; `pause` is the wait between two attempts, which is nobody's work."""
    before = {name: float(getattr(old, name)) if old else 0.0 for name in BUCKETS}
    after = {name: round(before[name] + new.get(name, 0.0), 3) for name in BUCKETS}
    after["other"] = round(after["other"] + pause, 3)
    texts = {name: _text(seconds) for name, seconds in after.items()}
    if saved is not None or (old and old.saved):
        texts["saved"] = _text(round((saved or 0.0) + float((old and old.saved) or 0), 3))
    return TimeSpent(total=_text(sum(after.values())), **texts)


def goodput(times: TimeSpent) -> str | None:
    """Share of the wall clock in which the network was trained, to two digits; None before there is any."""
    total = float(times.total)
    return f"{float(times.compute) / total:.2f}" if total else None


@dataclass(frozen=True)
class Growth:
    """What one stored status has more than the one before it."""

    node_hours: float
    gpu_hours: float
    cost: float
    currency: str
    seconds: Mapping[str, float]
    """By bucket, as `status.time` names them."""


def growth(old: Body, new: Body) -> Growth:
    """From two statuses as they are stored; what shrank (a price was lowered) counts as nothing."""
    amount, _, currency = str(new.get("cost") or "0 ").partition(" ")
    before, after = old.get("time") or {}, new.get("time") or {}
    return Growth(
        node_hours=_more(old.get("nodeHours"), new.get("nodeHours")),
        gpu_hours=_more(old.get("gpuHours"), new.get("gpuHours")),
        cost=_more(str(old.get("cost") or "0").partition(" ")[0], amount),
        currency=currency,
        seconds={
            name: _more(before.get(name), value) for name, value in after.items() if name not in {"total", "saved"}
        },
    )


def _more(old: str | None, new: str | None) -> float:
    return max(0.0, float(new or 0) - float(old or 0))


def billed_hours(span: Span) -> float:
    """Hours for which one pod held its node."""
    return _seconds(span.scheduled, span.end) / 3600 if span.scheduled else 0.0


def node_hours(attempt: Attempt, until: datetime) -> float:
    """Hours that all pods of an elastic attempt together held nodes."""
    since = parse_time(attempt.nodes_time) or until
    return ((attempt.node_seconds or 0) + (attempt.nodes or 0) * max(0.0, (until - since).total_seconds())) / 3600


def price(profile: Profile, *, node_hours: float, gpu_hours: float) -> float:
    """Price in the profile's currency."""
    return node_hours * float(profile.price_per_node_hour) + gpu_hours * float(profile.price_per_accelerator_hour)


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return max(timedelta(0), end - start).total_seconds() if start and end else 0.0


def _text(seconds: float) -> str:
    return f"{min(seconds, LONGEST):.3f}".rstrip("0").rstrip(".")
