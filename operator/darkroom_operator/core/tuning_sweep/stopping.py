"""Whether a search is over, and why: the first check that answers wins, and its words are what the user reads."""

from dataclasses import dataclass
from datetime import timedelta

from darkroom_api import names
from darkroom_api.v1alpha1.budget import seconds_of
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.tuning_sweep import prune
from darkroom_operator.core.tuning_sweep.history import History, Observed, best_of


@dataclass(frozen=True)
class Verdict:
    """Why the search is over."""

    reason: str
    message: str
    failed: bool = False
    hurry: bool = True
    """Trials that run are stopped; otherwise they run to their end."""


def verdict(seen: Observed, spec: TuningSweepSpec, past: History) -> Verdict | None:
    """The first that answers; None: the search goes on."""
    for check in (_too_many_failed, _target_reached, _money_spent, _too_long, _no_improvement, _enough_trials):
        if found := check(seen, spec, past):
            return found
    return None


def _too_many_failed(_seen: Observed, spec: TuningSweepSpec, past: History) -> Verdict | None:
    failed = [record for record in past.records if record.result == "Failed"]
    borne = spec.stopping.max_failed_trials
    if len(failed) <= borne:
        return None
    last = failed[-1]
    message = f"{len(failed)} trials failed, stopping.maxFailedTrials bears {borne}; last: trial {last.number}: {last.reason}: "
    return Verdict(names.REASON_TOO_MANY_FAILED, message + (last.message or ""), failed=True)


def _target_reached(_seen: Observed, spec: TuningSweepSpec, past: History) -> Verdict | None:
    objective = spec.objectives[0]
    best = best_of(past.records, spec)
    if len(spec.objectives) > 1 or objective.target is None or not best:
        return None
    value = (best[0].values or ["nan"])[0]
    gain = float(value) - float(objective.target)
    if (gain < 0) if prune.is_maximized(objective.direction) else (gain > 0):
        return None
    message = f"trial {best[0].number}: {objective.metric} is {value}, {objective.target} is wanted"
    return Verdict(names.REASON_TARGET_REACHED, message)


def _money_spent(_seen: Observed, spec: TuningSweepSpec, past: History) -> Verdict | None:
    hours, cost, currency = spent(past)
    limits = (("maxGpuHours", spec.stopping.max_gpu_hours, hours), ("maxCost", spec.stopping.max_cost, cost))
    for field, limit, used in limits:
        if limit is not None and used >= float(limit) - 1e-9:
            unit = f" {currency}" if field == "maxCost" and currency else ""
            return Verdict(names.REASON_BUDGET_SPENT, f"stopping.{field}: {used:.4g} of {float(limit):.4g}{unit} spent")
    return None


def spent(past: History) -> tuple[float, float, str]:
    """GPU-hours, cost and currency of all trials; of those that run, what their ended attempts took."""
    hours = [r.gpu_hours for r in past.records] + [t.status.gpu_hours for t in past.running]
    costs = [r.cost for r in past.records] + [t.status.cost for t in past.running]
    amounts = [cost.partition(" ") for cost in costs if cost]
    currency = amounts[0][2] if amounts else ""
    return sum(float(h) for h in hours if h), sum(float(amount) for amount, _, _ in amounts), currency


def _too_long(seen: Observed, spec: TuningSweepSpec, _past: History) -> Verdict | None:
    left = seconds_left(seen, spec)
    if left is None or left > 0:
        return None
    return Verdict(names.REASON_BUDGET_SPENT, f"stopping.maxDuration ({spec.stopping.max_duration}) passed")


def seconds_left(seen: Observed, spec: TuningSweepSpec) -> float | None:
    """Until maxDuration is over; None: never, or it has not begun."""
    start = parse_time(seen.status.start_time)
    if spec.stopping.max_duration is None or start is None:
        return None
    return (start + timedelta(seconds=seconds_of(spec.stopping.max_duration)) - seen.now).total_seconds()


def _no_improvement(_seen: Observed, spec: TuningSweepSpec, past: History) -> Verdict | None:
    wanted = spec.stopping.no_improvement_trials
    best = best_of(past.records, spec)
    if wanted is None or not best:
        return None
    since = sum(r.number > best[0].number and r.result in ("Succeeded", "Pruned") for r in past.records)
    if since < wanted:
        return None
    return Verdict(names.REASON_NO_IMPROVEMENT, f"{since} trials since trial {best[0].number}, and none was better")


def _enough_trials(_seen: Observed, spec: TuningSweepSpec, past: History) -> Verdict | None:
    if past.created < spec.stopping.max_trials:
        return None
    message = f"{past.created} trials were made, as stopping.maxTrials says"
    return Verdict(names.REASON_MAX_TRIALS, message, hurry=False)


def exhausted(past: History) -> Verdict:
    """Nothing is left to try."""
    message = f"every combination was tried: {past.created} trials"
    return Verdict(names.REASON_SPACE_EXHAUSTED, message, hurry=False)
