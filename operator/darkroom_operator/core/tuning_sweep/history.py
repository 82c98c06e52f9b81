"""Gather: the sweep and its trials as the API server has them, to the record of all trials that decisions are made from.

A trial that exists speaks for itself, and what it says is recorded once it has ended. One that is gone is what its record
says; one that is gone without a record was deleted by somebody.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from darkroom_api import names
from darkroom_api.v1alpha1.common import describe_errors
from darkroom_api.v1alpha1.training_job_status import Point, TrainingJobStatus
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord, TuningSweepStatus
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.training_job.observe import leave_of, stored_status
from darkroom_operator.core.tuning_sweep import auto, ledger, prune, space
from darkroom_operator.core.tuning_sweep.curves import Curve, curve_text, in_seconds, of_points, parse_curve
from darkroom_operator.core.tuning_sweep.suggest import Pending
from darkroom_operator.core.types import Body, Refusal

_PARAMETERS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class SweepFacts:
    """All that the plan of a sweep may look at."""

    body: Body
    jobs: tuple[Body, ...]
    """TrainingJobs with the sweep's label: trials and refits."""
    now: datetime
    refusal: Refusal | None = None
    pages: tuple[ledger.Page, ...] = ()
    """Of the ledger, as far as they have been read."""
    gone: frozenset[str] = frozenset()
    """Names of pages that have been read but exist no more."""


@dataclass(frozen=True)
class Trial:
    """A TrainingJob of the sweep."""

    name: str
    uid: str
    number: int | None
    """None: a refit."""
    created: datetime
    status: TrainingJobStatus
    parameters: dict[str, str]
    generation: int | None = None
    leave: tuple[str, str] | None = None
    """Reason and message, once it was told to leave."""
    suspended: bool = False
    """spec.suspend."""
    deleting: bool = False
    in_seconds: bool = False
    """Pruning goes by seconds of training, not by epochs."""

    @property
    def finished(self) -> bool:
        """At its end."""
        return bool(self.status.finished)

    @property
    def curve(self) -> Curve:
        """The objective by epoch, or by seconds."""
        return of_points(self.points)

    @property
    def points(self) -> list[Point]:
        """The same as text."""
        return in_seconds(self.status.curve) if self.in_seconds else self.status.curve or []

    @property
    def ended(self) -> tuple[str, str]:
        """Reason and message of its end."""
        ready = (c for c in self.status.conditions or [] if c.type == names.READY)
        return next(((c.reason, c.message) for c in ready), ("", ""))


@dataclass(frozen=True)
class Observed:
    """Everything that a decision about one sweep may depend on."""

    name: str
    namespace: str
    uid: str
    generation: int
    now: datetime
    spec: TuningSweepSpec | None
    problems: tuple[str, ...]
    status: TuningSweepStatus
    """As stored."""
    trials: tuple[Trial, ...]
    refits: tuple[Trial, ...]
    refusal: Refusal | None
    pages: tuple[ledger.Page, ...] = ()
    gone: frozenset[str] = frozenset()
    deleting: bool = False
    expanded: str | None = None
    """The search that `auto` stands for, as the status tells it."""

    @property
    def seed(self) -> str:
        """What every random choice of the sweep follows from."""
        given = self.spec.algorithm.seed if self.spec else None
        return self.uid if given is None else str(given)


def observe(facts: SweepFacts) -> Observed:
    """Facts in, the picture out. Never raises: what cannot be read becomes `problems`."""
    meta = facts.body["metadata"]
    uid = meta["uid"]
    raw, stored = facts.body.get("spec") or {}, stored_sweep_status(facts.body)
    spec, problems = _spec(raw, stored.expanded)
    timed = spec is not None and prune.in_seconds(spec.pruning)
    mine = [
        _trial(job, in_seconds=timed)
        for job in facts.jobs
        if job["metadata"].get("labels", {}).get(names.LABEL_SWEEP_UID) == uid
    ]
    return Observed(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=uid,
        generation=meta.get("generation", 1),
        now=facts.now,
        spec=spec,
        problems=problems,
        status=stored,
        trials=tuple(sorted((t for t in mine if t.number is not None), key=lambda t: t.number or 0)),
        refits=tuple(t for t in mine if t.number is None),
        refusal=facts.refusal,
        pages=ledger.usable(facts.pages, uid),
        gone=facts.gone,
        deleting="deletionTimestamp" in meta,
        expanded=auto.told(raw, stored.expanded, spec, name=meta["name"], namespace=meta["namespace"])
        if spec
        else None,
    )


def _spec(raw: dict[str, Any], known: str | None) -> tuple[TuningSweepSpec | None, tuple[str, ...]]:
    try:
        spec = auto.resolved(raw, known)
    except ValidationError as error:
        return None, tuple(describe_errors(error, "spec"))
    problems = tuple(_out_of_range(spec))
    return (None, problems) if problems else (spec, ())


def _out_of_range(spec: TuningSweepSpec) -> list[str]:
    """What the API server's rules cannot check: values of a warm start against the ranges of their parameters."""
    known = {parameter.name: parameter for parameter in spec.parameters}
    return [
        f"spec.warmStart.configurations[{index}].{name}: {text!r} is not a value of the parameter"
        for index, configuration in enumerate(spec.warm_start.configurations if spec.warm_start else [])
        for name, text in configuration.items()
        if not space.contains(known[name], text)
    ]


def stored_sweep_status(body: Body) -> TuningSweepStatus:
    """A TuningSweep's. Fields of a newer version are passed over; a status that makes no sense counts as none."""
    try:
        return TuningSweepStatus.model_validate_json(json.dumps(body.get("status") or {}), extra="ignore")
    except ValidationError:
        return TuningSweepStatus()


def _trial(body: Body, *, in_seconds: bool) -> Trial:
    meta, spec = body["metadata"], body.get("spec") or {}
    notes = meta.get("annotations", {})
    number = meta.get("labels", {}).get(names.LABEL_TRIAL)
    generation = notes.get(names.ANNOTATION_GENERATION)
    return Trial(
        name=meta["name"],
        uid=meta["uid"],
        number=int(number) if number is not None else None,
        created=parse_time(meta["creationTimestamp"]) or datetime.min,  # noqa: DTZ901 - the API server always sets it
        status=stored_status(body),
        parameters=_parameters(notes.get(names.ANNOTATION_PARAMETERS, "{}")),
        generation=int(generation) if generation and generation.isdigit() else None,
        leave=leave_of(body),
        suspended=bool(spec.get("suspend")),
        deleting="deletionTimestamp" in meta,
        in_seconds=in_seconds,
    )


def _parameters(text: str) -> dict[str, str]:
    try:
        return _PARAMETERS.validate_json(text)
    except ValidationError:
        return {}  # somebody edited the annotation: the sampler takes it for a failed trial


# --- The record ---


@dataclass(frozen=True)
class History:
    """Every trial that there ever was: those that have ended, and those under way."""

    records: tuple[TrialRecord, ...]
    running: tuple[Trial, ...]
    created: int
    """The next trial's number."""
    pages: tuple[ledger.Page, ...] = ()
    """The oldest records, from trial 0 on."""

    @property
    def recent(self) -> tuple[TrialRecord, ...]:
        """Records that are in no page."""
        return self.records[sum(len(page.rows) for page in self.pages) :]

    @property
    def pending(self) -> list[Pending]:
        """Those under way, as the sampler sees them."""
        return [Pending(t.number or 0, t.parameters, t.generation) for t in self.running]

    def peers(self, number: int) -> list[prune.Peer]:
        """All others, as a decision about one sees them."""
        ended = [prune.Peer(r.number, parse_curve(r.curve), r.result == "Succeeded") for r in self.records]
        running = [prune.Peer(t.number or 0, t.curve) for t in self.running]
        return [peer for peer in (*ended, *running) if peer.number != number]


def history(seen: Observed, spec: TuningSweepSpec) -> History:
    """The stored record, brought up to date with the trials that exist."""
    paged = {record.number: record for page in seen.pages for record in page.rows}
    records = {record.number: record for record in seen.status.ledger or []} | paged
    present = {trial.number: trial for trial in seen.trials if trial.number is not None}
    known = seen.status.trials.created if seen.status.trials else 0
    created = max([known, *(number + 1 for number in (*records, *present))])
    for number in range(len(paged), created):
        trial = present.get(number)
        if trial and trial.finished:
            records[number] = record_of(trial, spec)
        elif trial:
            records.pop(number, None)
        elif number not in records:
            records[number] = TrialRecord(
                number=number,
                result="Failed",
                reason=names.REASON_TRIAL_DELETED,
                message="it was deleted before it had ended",
            )
    running = tuple(trial for trial in seen.trials if not trial.finished and trial.number not in paged)
    return History(tuple(records[number] for number in sorted(records)), running, created, seen.pages)


def record_of(trial: Trial, spec: TuningSweepSpec) -> TrialRecord:
    """What came of a trial that has ended."""
    result, reason, message, values, constraints = _judged(trial, spec)
    curve = trial.curve
    kept = prune.kept_epochs(spec.pruning, curve, last=result in ("Pruned", "Stopped"))
    ended = parse_time(trial.status.completion_time)
    return TrialRecord.model_validate(
        {
            "number": trial.number or 0,
            "result": result,
            "parameters": trial.parameters,
            "values": values,
            "constraints": constraints or None,
            "curve": curve_text(trial.points, kept),
            "generation": trial.generation,
            "reason": reason,
            "message": message[:256] if message else None,
            "gpu_hours": trial.status.gpu_hours,
            "cost": trial.status.cost,
            "seconds": max(0, round((ended - trial.created).total_seconds())) if ended else None,
        }
    )


def _judged(
    trial: Trial, spec: TuningSweepSpec
) -> tuple[str, str | None, str | None, list[str] | None, list[str] | None]:
    """Result, reason, message, values, constraints."""
    reason, message = trial.ended
    if reason in (names.REASON_PRUNED, names.REASON_SWEEP_ENDED):
        return ("Pruned" if reason == names.REASON_PRUNED else "Stopped"), reason, message, None, None
    if trial.status.state != "Complete":
        return "Failed", reason or None, message or None, None, None
    told = metrics_of(trial.status)
    wanted = [o.metric for o in spec.objectives] + [c.metric for c in spec.constraints or []]
    if missing := [metric for metric in wanted if metric not in told]:
        said = ", ".join(sorted(told)) or "no metric"
        return "Failed", names.REASON_METRIC_MISSING, f"{', '.join(missing)} not reported; reported: {said}", None, None
    if strange := [metric for metric in wanted if not math.isfinite(_number(told[metric]))]:
        words = ", ".join(f"{metric} is {told[metric]}" for metric in strange)
        return "Failed", names.REASON_METRIC_MISSING, f"{words}: no number to compare", None, None
    values = [told[objective.metric] for objective in spec.objectives]
    return "Succeeded", None, None, values, [told[constraint.metric] for constraint in spec.constraints or []]


def metrics_of(status: TrainingJobStatus) -> dict[str, str]:
    """The metrics of a trial: the latest, and the best value of the one that its model is chosen by."""
    told = {metric.name: metric.value for metric in (status.progress.metrics if status.progress else None) or []}
    return told | ({status.best.metric: status.best.value} if status.best else {})


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def best_of(records: Sequence[TrialRecord], spec: TuningSweepSpec) -> list[TrialRecord]:
    """Trials that keep the constraints and that no other beats in every objective; of equal ones the first."""
    fit = [r for r in records if r.result == "Succeeded" and r.values and _keeps(r, spec)]
    if len(spec.objectives) == 1:
        return sorted(fit, key=lambda r: (_points(r, spec)[0], -r.number), reverse=True)[:1]
    return [r for r in fit if not any(_beats(other, r, spec) for other in fit)]


def _points(record: TrialRecord, spec: TuningSweepSpec) -> list[float]:
    """Values with their signs so that more is better."""
    return [
        float(value) if prune.is_maximized(objective.direction) else -float(value)
        for value, objective in zip(record.values or [], spec.objectives, strict=True)
    ]


def _beats(one: TrialRecord, other: TrialRecord, spec: TuningSweepSpec) -> bool:
    mine, theirs = _points(one, spec), _points(other, spec)
    better = all(m >= t for m, t in zip(mine, theirs, strict=True))
    return better and (mine != theirs or one.number < other.number)


def _keeps(record: TrialRecord, spec: TuningSweepSpec) -> bool:
    return all(
        (c.upper is None or float(text) <= float(c.upper)) and (c.lower is None or float(text) >= float(c.lower))
        for c, text in zip(spec.constraints or [], record.constraints or [], strict=False)
    )
