"""Whether a training has had what its budget allows, and for how long that will last."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from darkroom_api import names
from darkroom_api.v1alpha1.budget import Direction, Target, seconds_of
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import Attempt, TrainingJobStatus
from darkroom_operator.core import accounting
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job.observe import Observed, observe
from darkroom_operator.core.types import Facts


@dataclass(frozen=True)
class Use:
    """How much of one limit is used, in its own unit, and how much more each second of running takes."""

    field: str
    limit: float
    used: float
    per_second: float

    @property
    def seconds_left(self) -> float:
        """Of running at the present rate; infinite where running takes nothing."""
        left = self.limit - self.used
        return left / self.per_second if self.per_second > 0 else float("inf")

    @property
    def spent(self) -> bool:
        """At or over the limit. A tolerance far below anybody's notice keeps an alarm from coming a rounding too early."""
        return self.used >= self.limit - 1e-9


def verdict(
    seen: Observed, spec: TrainingJobSpec, status: TrainingJobStatus, running: Attempt | None
) -> tuple[str, str] | None:
    """Reason and message, if the budget says that it is time to finish."""
    if spec.budget is None:
        return None
    for use in _uses(seen, spec, status, running):
        if use.spent:
            return names.REASON_BUDGET_SPENT, f"budget.{use.field}: {use.used:.4g} of {use.limit:.4g} spent"
    if spec.budget.target and (value := _reached(spec.budget.target, status)) is not None:
        target = spec.budget.target
        return names.REASON_TARGET_REACHED, f"budget.target: {target.metric} is {value}, {target.value} is wanted"
    return None


def seconds_left(seen: Observed, spec: TrainingJobSpec, status: TrainingJobStatus, running: Attempt) -> float | None:
    """Until the first limit is reached, at the present rate."""
    if spec.budget is None:
        return None
    lasts = [use.seconds_left for use in _uses(seen, spec, status, running)]
    return min((seconds for seconds in lasts if seconds != float("inf")), default=None)


def seconds_left_of(facts: Facts, attempt: int) -> float | None:
    """The same for the attempt that asks; None as well where nothing limits it, and for one that is not running."""
    seen = observe(facts)
    running = next((a for a in seen.status.attempts or [] if a.number == attempt and a.end_time is None), None)
    if seen.spec is None or running is None:
        return None
    left = seconds_left(seen, seen.spec, seen.status, running)
    return None if left is None else max(0.0, left)


def seconds_of_all(spec: TrainingJobSpec, profile: Profile) -> int | None:
    """What the budget allows, from the first attempt to the last, in seconds of running; None: nothing limits it."""
    budget = spec.budget
    if budget is None:
        return None
    gpus = spec.nodes / 3600 * profile.accelerators_in(profile.resources_for(spec.resources_per_node))
    price = price_per_hour(spec, profile) / 3600
    limits = [
        seconds_of(budget.max_duration) if budget.max_duration else None,
        float(budget.max_gpu_hours) / gpus if budget.max_gpu_hours and gpus else None,
        float(budget.max_cost) / price if budget.max_cost and price else None,
    ]
    least = min((limit for limit in limits if limit is not None), default=None)
    return None if least is None else max(1, round(least))


def price_per_hour(spec: TrainingJobSpec, profile: Profile) -> float:
    """What all nodes together cost, in the profile's currency."""
    gpus = spec.nodes * profile.accelerators_in(profile.resources_for(spec.resources_per_node))
    return accounting.price(profile, node_hours=spec.nodes, gpu_hours=gpus)


def active_seconds(status: TrainingJobStatus, running: Attempt | None, now: datetime) -> float:
    """Seconds of all attempts; time between attempts, suspended or in a queue does not count."""
    start = counted_from(running) if running else None
    return (status.active_seconds or 0) + ((now - start).total_seconds() if start else 0.0)


def counted_from(attempt: Attempt) -> datetime | None:
    """When an attempt began to count: when it was made or, with a queue, let start. None: it has not been yet."""
    return parse_time(attempt.admitted_time if attempt.queue else attempt.start_time)


def _uses(seen: Observed, spec: TrainingJobSpec, status: TrainingJobStatus, running: Attempt | None) -> Iterator[Use]:
    budget = spec.budget
    if budget is None:
        return
    if budget.max_duration is not None:
        used = active_seconds(status, running, seen.now)
        yield Use("maxDuration", seconds_of(budget.max_duration), used, 1.0 if running else 0.0)
    if seen.profile is None:
        return
    gpus = seen.profile.accelerators_in(seen.profile.resources_for(spec.resources_per_node))
    hours = _hours_of(seen, spec, running)
    nodes = float(status.node_hours or 0) + hours
    accelerators = float(status.gpu_hours or 0) + hours * gpus
    held = (running.nodes or 0) if running and spec.elastic else spec.nodes
    rate = held / 3600 if running else 0.0
    if budget.max_gpu_hours is not None:
        yield Use("maxGpuHours", float(budget.max_gpu_hours), accelerators, rate * gpus)
    if budget.max_cost is not None:
        price = accounting.price(seen.profile, node_hours=nodes, gpu_hours=accelerators)
        per_second = accounting.price(seen.profile, node_hours=rate, gpu_hours=rate * gpus)
        yield Use("maxCost", float(budget.max_cost), price, per_second)


def _hours_of(seen: Observed, spec: TrainingJobSpec, running: Attempt | None) -> float:
    """Node-hours of the running attempt, as they will be billed: by its first pod, or by all where they come and go."""
    if running and spec.elastic:
        return accounting.node_hours(running, seen.now)
    first = next((pod for pod in seen.current_pods(running.number) if pod.index == 0), None) if running else None
    scheduled = first.scheduled_at if first else None
    return max(0.0, (seen.now - scheduled).total_seconds()) / 3600 * spec.nodes if scheduled else 0.0


def _reached(target: Target, status: TrainingJobStatus) -> str | None:
    """The reported value that is good enough: the best so far, or the latest."""
    told = {metric.name: metric.value for metric in (status.progress.metrics if status.progress else None) or []}
    if status.best:
        told[status.best.metric] = status.best.value
    value = told.get(target.metric)
    if value is None:
        return None
    gain = float(value) - float(target.value)
    return value if (gain >= 0 if target.direction == Direction.MAXIMIZE else gain <= 0) else None
