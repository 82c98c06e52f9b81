"""Summarise: from the record of all trials to what people and tools read."""

from collections.abc import Sequence

from darkroom_api import names
from darkroom_api.v1alpha1.training_job_status import Outputs
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import (
    BestTrial,
    RefitStatus,
    TrialCounts,
    TrialRecord,
    TuningSweepStatus,
)
from darkroom_operator.core.conditions import conditions, timestamp
from darkroom_operator.core.training_job.live import duration
from darkroom_operator.core.training_job.status import Phase, stands
from darkroom_operator.core.tuning_sweep import suggest
from darkroom_operator.core.tuning_sweep.history import History, Observed, Trial, best_of
from darkroom_operator.core.tuning_sweep.objects import trial_name
from darkroom_operator.core.tuning_sweep.stopping import spent

FRONT = 32
"""Trials of a Pareto front that are shown."""
_ROWS = tuple(name for name in TrialCounts.model_fields if name in ("succeeded", "pruned", "stopped", "failed"))


def searching(message: str) -> Phase:
    """Trials run, or are about to."""
    return Phase("Running", names.REASON_SEARCHING, message, ready=True)


def render(
    seen: Observed, spec: TuningSweepSpec | None, past: History | None, phase: Phase, refit: Trial | None = None
) -> TuningSweepStatus:
    """The whole status as it should be stored."""
    new = seen.status.model_copy(deep=True)
    new.observed_generation = seen.generation
    new.state, new.finished = phase.state, phase.finished
    new.conditions = conditions(seen.status.conditions or [], stands(phase), generation=seen.generation, now=seen.now)
    new.completion_time = (seen.status.completion_time or timestamp(seen.now)) if phase.finished else None
    if spec is None or past is None:
        return new
    new.expanded = seen.expanded
    new.ledger = list(past.recent) or None
    new.ledger_pages = [page.entry for page in past.pages] or None
    new.trials = _counts(spec, past)
    if past.created and not new.start_time:
        new.start_time = timestamp(min((trial.created for trial in seen.trials), default=seen.now))
    front = [_best(seen, record) for record in best_of(past.records, spec)]
    new.best = front[0] if front and len(spec.objectives) == 1 else None
    new.pareto = front[:FRONT] if front and len(spec.objectives) > 1 else None
    if _weighs_anew(seen, new):
        new.importances = suggest.importances(spec, past.recent, past.pages)
    hours, cost, currency = spent(past)
    new.gpu_hours = f"{hours:.4f}"
    new.saved_gpu_hours = _saved(past.records)
    new.cost = f"{cost:.4f} {currency}" if cost else None
    new.eta = None if phase.finished or phase.suspended else _eta(spec, past)
    failed = [record for record in past.records if record.result == "Failed"]
    new.message = f"trial {failed[-1].number}: {failed[-1].reason}: {failed[-1].message}"[:1024] if failed else None
    new.refit = _refit(refit) if refit else seen.status.refit
    return new


def _weighs_anew(seen: Observed, new: TuningSweepStatus) -> bool:
    """At each doubling from 10 successful trials on, and at the end: a look at every trial is no matter of every step."""
    before, after = (told.trials.succeeded // 10 if told.trials else 0 for told in (seen.status, new))
    ends = bool(new.finished) and not seen.status.finished
    return after > 0 and (ends or before.bit_length() != after.bit_length())


def _counts(spec: TuningSweepSpec, past: History) -> TrialCounts:
    by_result = {row: sum(record.result.lower() == row for record in past.records) for row in _ROWS}
    words = [f"{len(past.records)} of {spec.stopping.max_trials}"]
    words += [f"{len(past.running)} running"] if past.running else []
    words += [f"{by_result[row]} {row}" for row in ("pruned", "stopped", "failed") if by_result[row]]
    return TrialCounts(created=past.created, running=len(past.running), summary=", ".join(words), **by_result)


def _best(seen: Observed, record: TrialRecord) -> BestTrial:
    values = record.values or []
    return BestTrial(
        trial=record.number,
        job=trial_name(seen.name, record.number),
        value=values[0],
        values=values,
        parameters=record.parameters,
        outputs=_outputs(seen, record.number),
    )


def _outputs(seen: Observed, number: int) -> Outputs | None:
    """Of the trial while it exists, and as it was told before."""
    trial = next((trial for trial in seen.trials if trial.number == number), None)
    if trial:
        return trial.status.outputs
    told = [*(seen.status.pareto or []), *([seen.status.best] if seen.status.best else [])]
    return next((best.outputs for best in told if best.trial == number), None)


def _eta(spec: TuningSweepSpec, past: History) -> str | None:
    """At the pace of the trials so far; they overlap, and those that run are half done."""
    lasted = [record.seconds for record in past.records if record.seconds]
    left = spec.stopping.max_trials - len(past.records) - len(past.running) / 2
    if not lasted or left <= 0:
        return None
    return duration(round(_mean(lasted) * max(1.0, left / spec.parallelism)))


def _saved(records: Sequence[TrialRecord]) -> str | None:
    whole = [float(record.gpu_hours) for record in records if record.result == "Succeeded" and record.gpu_hours]
    pruned = [float(record.gpu_hours or 0) for record in records if record.result == "Pruned"]
    if not whole or not pruned:
        return None
    return f"{sum(max(0.0, _mean(whole) - hours) for hours in pruned):.4f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _refit(job: Trial) -> RefitStatus:
    number = int(job.name.rsplit("-", 1)[1])
    return RefitStatus(job=job.name, trial=number, state=job.status.state or "Pending", outputs=job.status.outputs)
