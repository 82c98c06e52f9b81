"""Numbers of single TrainingJobs and TuningSweeps for a monitoring system, read from their stored status."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.types import Body

Sample = tuple[tuple[str, ...], float]
"""Values of the labels beyond namespace and name, and the value."""
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Family:
    """One metric of one object."""

    name: str
    text: str
    read: Callable[[Body], Iterable[Sample]]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """Objects that have series of their own, and how many more would have."""

    bodies: list[Body]
    left_out: int


def chosen(bodies: Iterable[Body], now: datetime, *, limit: int, keep_seconds: float) -> Chosen:
    """At most `limit`: those that are not finished, the oldest first, so that none loses its place; then the newest ends.

    What finished more than `keep_seconds` ago has none.
    """
    running, finished = [], []
    for body in bodies:
        end = _end(body)
        if end is None:
            running.append(body)
        elif end > now - timedelta(seconds=keep_seconds):
            finished.append(body)
    running.sort(key=lambda body: (body["metadata"].get("creationTimestamp", ""), body["metadata"]["uid"]))
    finished.sort(key=lambda body: (body["status"]["completionTime"], body["metadata"]["uid"]), reverse=True)
    candidates = [*running, *finished]
    return Chosen(candidates[:limit], max(0, len(candidates) - limit))


def _end(body: Body) -> datetime | None:
    status = _status(body)
    return parse_time(status.get("completionTime")) if status.get("finished") else None


def _status(body: Body) -> Mapping[str, Any]:
    return body.get("status") or {}


def state_of(body: Body) -> str:
    """The word for people; that of a new object before the operator has looked at it."""
    return str(_status(body).get("state", "Pending"))


@dataclass(frozen=True)
class Held:
    """What a job takes from the cluster now."""

    nodes: int
    accelerators: int


def held(body: Body, profile: Profile | None) -> Held:
    """Its pods that run, and their accelerators as its profile counts them; 0 where its profile is gone."""
    nodes = _up(body)
    if profile is None:
        return Held(nodes, 0)
    resources = profile.resources_for(body["spec"].get("resourcesPerNode") or {})
    return Held(nodes, nodes * profile.accelerators_in(resources))


def _up(body: Body) -> int:
    text = str(_status(body).get("nodes") or "").partition("/")[0]
    return int(text) if text.isdigit() else 0


def _number(*path: str, scale: float = 1.0) -> Callable[[Body], Iterator[Sample]]:
    """A number or a decimal string in the status; no sample where it is absent or, in a foreign status, something else."""

    def read(body: Body) -> Iterator[Sample]:
        value: Any = _status(body)
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        yield from _sample((), value, scale)

    return read


def _sample(labels: tuple[str, ...], value: Any, scale: float = 1.0) -> Iterator[Sample]:
    try:
        yield labels, float(value) * scale
    except (TypeError, ValueError):
        return


def _state(body: Body) -> Iterator[Sample]:
    yield (body.get("spec", {}).get("profile", "default"), state_of(body)), 1.0


def _nodes(body: Body) -> Iterator[Sample]:
    yield (), float(_up(body))


def _metrics(body: Body) -> Iterator[Sample]:
    for metric in (_status(body).get("progress") or {}).get("metrics") or []:
        yield from _sample((metric["name"],), metric["value"])


def _best(body: Body) -> Iterator[Sample]:
    if best := _status(body).get("best"):
        yield from _sample((best["metric"],), best["value"])


def _time(body: Body) -> Iterator[Sample]:
    for bucket, seconds in (_status(body).get("time") or {}).items():
        if bucket not in {"total", "saved"}:
            yield from _sample((bucket,), seconds)


def _cost(body: Body) -> Iterator[Sample]:
    amount, _, currency = str(_status(body).get("cost") or "").partition(" ")
    yield from _sample((currency,), amount)


def _trials(body: Body) -> Iterator[Sample]:
    counts = _status(body).get("trials") or {}
    for result in ("running", "succeeded", "pruned", "stopped", "failed"):
        yield from _sample((result,), counts.get(result))


def _best_of_sweep(body: Body) -> Iterator[Sample]:
    if best := _status(body).get("best"):
        yield from _sample((body["spec"]["objectives"][0]["metric"],), best["value"])


@dataclass(frozen=True)
class Families:
    """All of one kind; `left_out` is the name of the gauge of objects that have none."""

    left_out: str
    all: tuple[Family, ...]


OF_JOB = Families(
    "darkroom_trainingjobs_without_series",
    (
        Family("darkroom_trainingjob_state", "1, with the present state", _state, ("profile", "state")),
        Family("darkroom_trainingjob_nodes", "Pods that run", _nodes),
        Family(
            "darkroom_trainingjob_progress_ratio",
            "Share of the steps that are done",
            _number("progress", "percent", scale=0.01),
        ),
        Family("darkroom_trainingjob_epoch", "Epochs finished", _number("progress", "epoch")),
        Family("darkroom_trainingjob_step", "Optimizer steps done", _number("progress", "step")),
        Family(
            "darkroom_trainingjob_images_per_second",
            "Images per second over all nodes",
            _number("progress", "imagesPerSecond"),
        ),
        Family(
            "darkroom_trainingjob_eta_seconds",
            "Time to the end at the present speed",
            _number("progress", "etaSeconds"),
        ),
        Family(
            "darkroom_trainingjob_metric", "Latest value of each metric that the trainer reports", _metrics, ("metric",)
        ),
        Family("darkroom_trainingjob_best", "Best value of the metric that the model is chosen by", _best, ("metric",)),
        Family("darkroom_trainingjob_restarts", "Attempts that spent maxRestarts", _number("restarts")),
        Family("darkroom_trainingjob_disruptions", "Attempts lost to the infrastructure", _number("disruptions")),
        Family(
            "darkroom_trainingjob_goodput_ratio",
            "Share of its time in which the network was trained",
            _number("goodput"),
        ),
        Family("darkroom_trainingjob_time_seconds", "Wall clock of attempts that ended, by bucket", _time, ("bucket",)),
        Family(
            "darkroom_trainingjob_node_seconds",
            "Pod-seconds of attempts that ended",
            _number("nodeHours", scale=_SECONDS_PER_HOUR),
        ),
        Family(
            "darkroom_trainingjob_accelerator_seconds",
            "Accelerator-seconds of attempts that ended",
            _number("gpuHours", scale=_SECONDS_PER_HOUR),
        ),
        Family("darkroom_trainingjob_cost", "Price of attempts that ended", _cost, ("currency",)),
    ),
)
"""Of a TrainingJob; each has namespace and name in front of its labels."""

OF_SWEEP = Families(
    "darkroom_tuningsweeps_without_series",
    (
        Family("darkroom_tuningsweep_trials", "Trials by what became of them", _trials, ("result",)),
        Family("darkroom_tuningsweep_best", "Best value of the first objective", _best_of_sweep, ("metric",)),
        Family(
            "darkroom_tuningsweep_accelerator_seconds",
            "Accelerator-seconds of all trials",
            _number("gpuHours", scale=_SECONDS_PER_HOUR),
        ),
        Family(
            "darkroom_tuningsweep_saved_accelerator_seconds",
            "Accelerator-seconds that pruning saved, by estimate",
            _number("savedGpuHours", scale=_SECONDS_PER_HOUR),
        ),
    ),
)
"""Of a TuningSweep."""
