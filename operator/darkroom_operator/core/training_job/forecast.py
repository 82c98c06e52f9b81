"""The forecast in the status: from the job's own steps, or until there are any from those of an earlier job of the same work."""

import json
from dataclasses import dataclass

from pydantic import ValidationError

from darkroom_api.step_times import StepTimes
from darkroom_api.v1alpha1.forecast import Forecast, NodesForecast
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import TrainingJobStatus
from darkroom_api.v1alpha1.vision import CheckpointPolicy
from darkroom_operator.core import accounting, scaling
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job.live import duration
from darkroom_operator.core.types import Body, Precedent

NODES = (1, 2, 4, 8)
_WORK = ("profile", "resourcesPerNode", "numProcPerNode", "container")
_LIFETIME = 100 * 365 * 86400.0
_NO_MATTER = ("schedule", "seed", "optimizer")
"""Of `vision`: what changes no step's time, or hardly."""


def forecast(
    spec: TrainingJobSpec, status: TrainingJobStatus, profile: Profile | None, precedent: Precedent | None
) -> Forecast | None:
    """From what was measured last. One by an earlier job's steps is made once, and stands until there are own ones."""
    epochs = _epochs(spec, status)
    if profile is None or not epochs:
        return status.forecast
    if status.step_times:
        return _forecast(spec, profile, status.step_times, epochs, "steps measured")
    if status.forecast or precedent is None:
        return status.forecast
    return _forecast(spec, profile, precedent.step_times, epochs, f"no step yet; steps of {precedent.name}, measured")


def _epochs(spec: TrainingJobSpec, status: TrainingJobStatus) -> int:
    return spec.vision.schedule.epochs if spec.vision else status.progress.epochs if status.progress else 0


def _forecast(
    spec: TrainingJobSpec, profile: Profile, measured: StepTimes, epochs: int, origin: str
) -> Forecast | None:
    """None where it would take a lifetime on any number of nodes: whoever measured that did not measure steps."""
    save_every = float((spec.checkpoint or CheckpointPolicy()).every_seconds)
    most = min(profile.max_nodes or NODES[-1], NODES[-1])
    wanted = {nodes for nodes in NODES if nodes <= most and scaling.can_use(measured, nodes)}
    found = {
        nodes: scaling.duration_at(measured, nodes=nodes, epochs=epochs, save_every=save_every)
        for nodes in sorted(wanted | {measured.nodes, spec.nodes})
    }
    found = {nodes: seconds for nodes, seconds in found.items() if seconds.high < _LIFETIME}
    if not found:
        return None
    return Forecast(
        basis=f"{origin} on {_count(measured.nodes, 'node')} ({_count(measured.processes, 'process')}); {_assumed(measured)}",
        by_nodes=[_on(nodes, seconds, spec, profile) for nodes, seconds in found.items()],
    )


def _assumed(measured: StepTimes) -> str:
    if measured.nodes > 1:
        return "other numbers of nodes are extrapolated"
    return "other numbers of nodes are extrapolated over a network of 1 to 100 Gbit/s, for none was used"


def _count(number: int, what: str) -> str:
    return f"{number} {what if number == 1 else what + ('es' if what.endswith('s') else 's')}"


def _on(nodes: int, took: scaling.Range, spec: TrainingJobSpec, profile: Profile) -> NodesForecast:
    seconds, low, high = (round(value) for value in (took.likely, took.low, took.high))
    return NodesForecast(
        nodes=nodes,
        seconds=seconds,
        low_seconds=low,
        high_seconds=high,
        duration=f"{duration(seconds)} ({duration(low)}-{duration(high)})",
        cost=_cost(nodes, (took.likely, took.low, took.high), spec, profile),
    )


def _cost(nodes: int, seconds: tuple[float, float, float], spec: TrainingJobSpec, profile: Profile) -> str | None:
    gpus = profile.accelerators_in(profile.resources_for(spec.resources_per_node))
    hours = [nodes * value / 3600 for value in seconds]
    likely, low, high = (accounting.price(profile, node_hours=h, gpu_hours=h * gpus) for h in hours)
    return f"{likely:.2f} {profile.currency} ({low:.2f}-{high:.2f})" if likely else None


# --- Earlier jobs ---


@dataclass(frozen=True)
class Measured:
    """What a job has measured, and of which work."""

    work: str
    precedent: Precedent


def measured_by(body: Body) -> Measured | None:
    """None where nothing was measured, or where a newer version wrote it in a way that this one cannot read."""
    found = (body.get("status") or {}).get("stepTimes")
    if found is None:
        return None
    try:
        return Measured(work_of(body), Precedent(body["metadata"]["name"], StepTimes.model_validate(found)))
    except ValidationError:
        return None


def work_of(body: Body) -> str:
    """The same for jobs of a namespace whose steps take the same time on the same number of nodes."""
    spec = body.get("spec") or {}
    vision = {key: value for key, value in (spec.get("vision") or {}).items() if key not in _NO_MATTER}
    work = {key: spec.get(key) for key in _WORK}
    return json.dumps([body["metadata"]["namespace"], work, vision], sort_keys=True)
