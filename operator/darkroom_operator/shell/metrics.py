"""Prometheus metrics and health.

Labels are bounded by the cluster and by configuration: namespaces, profiles in force, and words of the operator's own. A user
cannot add series, and no name of an object is a label; series of single objects are in collectors.py, opt-in and capped.
"""

import platform
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import get_args

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from darkroom_api import names
from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core import accounting
from darkroom_operator.core.types import Body

TRAINING_JOBS, TUNING_SWEEPS = "trainingjobs", "tuningsweeps"
"""Names of the queues."""
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asked for
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
_WAIT_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
UNKNOWN_PROFILE = "unknown"
"""Stands for every profile that is not in force: jobs may name what they like."""


_JOB_ENDINGS = (
    ("Complete", names.REASON_COMPLETED),
    *(
        ("Failed", reason)
        for reason in (
            names.REASON_RESTARTS_EXHAUSTED,
            names.REASON_DATA_ERROR,
            names.REASON_CONFIG_ERROR,
            names.REASON_DEADLINE_EXCEEDED,
        )
    ),
)
"""Results and reasons that are there with 0 from the beginning, as are those of attempts: the usual ones."""
_ATTEMPT_ENDINGS = (
    ("Succeeded", names.REASON_COMPLETED),
    *(
        ("Failed", reason)
        for reason in (
            names.REASON_SOFTWARE_ERROR,
            names.REASON_OUT_OF_MEMORY,
            names.REASON_KILLED,
            names.REASON_NO_PROGRESS,
            names.REASON_DATA_ERROR,
            names.REASON_CONFIG_ERROR,
        )
    ),
    *(
        ("Disrupted", reason)
        for reason in (names.REASON_DISRUPTED, names.REASON_PREEMPTED, names.REASON_ASKED_TO_LEAVE)
    ),
)


@dataclass(frozen=True)
class QueueMetrics:
    """What client-go counts of a work queue."""

    depth: Gauge
    adds: Counter
    retries: Counter
    wait: Histogram
    work: Histogram


class Metrics:
    """Everything that is counted, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.profiles: Collection[str] = ()
        """Names of the profiles in force."""
        here = self.registry
        self._depth = Gauge("workqueue_depth", "Keys that wait", ["name"], registry=here)
        self._adds = Counter("workqueue_adds", "Keys added", ["name"], registry=here)
        self._retries = Counter("workqueue_retries", "Keys retried", ["name"], registry=here)
        self._wait = _histogram("workqueue_queue_duration_seconds", "Wait of a key", here)
        self._work = _histogram("workqueue_work_duration_seconds", "Work on a key", here)
        self.reconciles = Counter("darkroom_reconcile", "Reconciles by result", ["result"], registry=here)
        self.reconcile_seconds = Histogram(
            "darkroom_reconcile_duration_seconds", "One reconcile", buckets=_BUCKETS, registry=here
        )
        build = Gauge("darkroom_build_info", "1, with the version", ["version", "kopf", "python"], registry=here)
        build.labels(version_of("darkroom"), version_of("kopf"), platform.python_version()).set(1)
        self.requests = Counter(
            "darkroom_api_requests", "Answers of the API server", ["verb", "resource", "code"], registry=self.registry
        )
        self.finished = Counter(
            "darkroom_trainingjobs_finished",
            "TrainingJobs that ended",
            ["namespace", "profile", "result", "reason"],
            registry=self.registry,
        )
        self.attempts = Counter(
            "darkroom_attempts",
            "Attempts that ended",
            ["namespace", "profile", "result", "reason"],
            registry=self.registry,
        )
        self.trials = Counter(
            "darkroom_trials", "Trials of sweeps that ended", ["namespace", "algorithm", "result"], registry=here
        )
        self.trial_seconds = Counter(
            "darkroom_trial_accelerator_seconds",
            "Accelerator-seconds of trials that ended",
            ["namespace", "algorithm", "result"],
            registry=here,
        )
        self.sweeps_finished = Counter(
            "darkroom_tuningsweeps_finished",
            "TuningSweeps that ended",
            ["namespace", "result", "reason"],
            registry=here,
        )
        self.reports = Counter(
            "darkroom_live_reports", "Live reports of training pods, by what became of them", ["result"], registry=here
        )
        self.events = Counter(
            "darkroom_events", "Events about our objects, by what became of them", ["type", "result"], registry=here
        )
        self.traces = Counter("darkroom_traces", "Jobs whose trace was sent", ["result"], registry=here)
        self.certificate_expiry = Gauge(
            "darkroom_reports_certificate_expiry_timestamp_seconds", "End of the certificate in use", registry=here
        )
        self.clock_skew = Gauge(
            "darkroom_clock_skew_seconds", "By which this node's clock is ahead of the API server's", registry=here
        )
        self.node_seconds = self._of_place("darkroom_node_seconds", "Pod-seconds of attempts that ended")
        self.accelerator_seconds = self._of_place(
            "darkroom_accelerator_seconds", "Accelerator-seconds of attempts that ended"
        )
        self.cost = self._of_place(
            "darkroom_cost", "Price of attempts that ended, in the profile's currency", "currency"
        )
        self.time = self._of_place("darkroom_time_seconds", "Wall clock of attempts that ended, by bucket", "bucket")
        self.queue_wait = self._wait_of_place(
            "darkroom_queue_wait_seconds", "From an attempt's creation until its queue let it start"
        )
        self.start_wait = self._wait_of_place(
            "darkroom_start_wait_seconds", "From an attempt's creation until all of its pods ran"
        )
        self.profiles_loaded = Gauge("darkroom_profiles_loaded", "Profiles in force", registry=self.registry)
        self.profiles_ok = Gauge(
            "darkroom_profiles_last_reload_successful", "1: the profiles file is in force", registry=self.registry
        )

    def queue(self, name: str) -> QueueMetrics:
        """Of the work queue of that name."""
        return QueueMetrics(
            depth=self._depth.labels(name),
            adds=self._adds.labels(name),
            retries=self._retries.labels(name),
            wait=self._wait.labels(name),
            work=self._work.labels(name),
        )

    def _of_place(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["namespace", "profile", *labels], registry=self.registry)

    def _wait_of_place(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ["namespace", "profile"], buckets=_WAIT_BUCKETS, registry=self.registry)

    def place(self, body: Body) -> tuple[str, str]:
        """Namespace and profile of a TrainingJob, as labels."""
        profile = body.get("spec", {}).get("profile", "default")
        return body["metadata"]["namespace"], profile if profile in self.profiles else UNKNOWN_PROFILE

    def count_request(self, verb: str, resource: str, code: int) -> None:
        """Told by the client of every answer."""
        self.requests.labels(verb, resource, str(code)).inc()

    def count_changes(self, body: Body, old: Body, new: Body) -> None:
        """Told when a status has been stored: attempts that it starts, attempts and jobs that it ends are counted once."""
        place = self.place(body)
        self._begin(place)
        before = {attempt["uid"]: attempt for attempt in old.get("attempts", [])}
        for attempt in new.get("attempts", []):
            known = before.get(attempt["uid"], {})
            if attempt.get("runningTime") and not known.get("runningTime"):
                self._count_waits(place, attempt)
            if attempt.get("endTime") and not known.get("endTime"):
                self.attempts.labels(*place, attempt["result"], attempt.get("reason", "")).inc()
        self._count_spending(place, accounting.growth(old, new))
        if new.get("finished") and not old.get("finished"):
            reason = next((c["reason"] for c in new["conditions"] if c["type"] == "Ready"), "")
            self.finished.labels(*place, new["state"], reason).inc()

    def _begin(self, place: tuple[str, str]) -> None:
        """Counters at 0 before they first count: Prometheus does not see an increase in a series that begins at 1."""
        for metric in (self.node_seconds, self.accelerator_seconds, self.start_wait):
            metric.labels(*place)
        for bucket in accounting.WIRE_BUCKETS:
            self.time.labels(*place, bucket)
        for counter, endings in ((self.attempts, _ATTEMPT_ENDINGS), (self.finished, _JOB_ENDINGS)):
            for result, reason in endings:
                counter.labels(*place, result, reason)

    def _count_waits(self, place: tuple[str, str], attempt: Body) -> None:
        if attempt.get("admittedTime"):
            self.queue_wait.labels(*place).observe(_seconds_between(attempt["startTime"], attempt["admittedTime"]))
        self.start_wait.labels(*place).observe(_seconds_between(attempt["startTime"], attempt["runningTime"]))

    def _count_spending(self, place: tuple[str, str], more: accounting.Growth) -> None:
        self.node_seconds.labels(*place).inc(more.node_hours * 3600)
        self.accelerator_seconds.labels(*place).inc(more.gpu_hours * 3600)
        if more.cost:
            self.cost.labels(*place, more.currency).inc(more.cost)
        for bucket, seconds in more.seconds.items():
            self.time.labels(*place, bucket).inc(seconds)

    def count_trials(self, body: Body, old: Body, new: Body) -> None:
        """Told when a sweep's status has been stored: trials and sweeps that it ends are counted once."""
        namespace = body["metadata"]["namespace"]
        algorithm = body["spec"].get("algorithm", {}).get("name", "Auto")
        for result in get_args(TrialRecord.model_fields["result"].annotation):
            self.trials.labels(namespace, algorithm, result)
            self.trial_seconds.labels(namespace, algorithm, result)
        known = {row["number"] for row in old.get("ledger", [])}
        for row in new.get("ledger", []):
            if row["number"] not in known:
                labels = (namespace, algorithm, row["result"])
                self.trials.labels(*labels).inc()
                self.trial_seconds.labels(*labels).inc(float(row.get("gpuHours", 0)) * 3600)
        if new.get("finished") and not old.get("finished"):
            reason = next((c["reason"] for c in new["conditions"] if c["type"] == "Ready"), "")
            self.sweeps_finished.labels(namespace, new["state"], reason).inc()


def _histogram(name: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, ["name"], buckets=_BUCKETS, registry=registry)


def _seconds_between(start: str, end: str) -> float:
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def version_of(distribution: str) -> str:
    """Of an installed distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


class Health:
    """Signs of life of every stream, and whether the caches are in step."""

    def __init__(self, stale_seconds: float) -> None:
        self._stale = stale_seconds
        self._streams: dict[str, Callable[[], float]] = {}
        self._synced: list[Callable[[], bool]] = []

    def watch_stream(self, name: str, last_activity: Callable[[], float]) -> None:
        """`last_activity` tells the time.monotonic() of the last line, bookmark or connection."""
        self._streams[name] = last_activity

    def wait_for(self, synced: Callable[[], bool]) -> None:
        """Not ready before `synced` is true."""
        self._synced.append(synced)

    def ages(self) -> dict[str, float]:
        """Seconds since each stream was last heard."""
        now = time.monotonic()
        return {name: now - heard() for name, heard in self._streams.items()}

    def dead(self) -> list[str]:
        """Streams that have been silent for too long."""
        return [f"{name} (silent for {age:.0f} s)" for name, age in self.ages().items() if age > self._stale]

    def ready(self) -> bool:
        """Every cache has its first list."""
        return all(synced() for synced in self._synced)


async def serve(metrics: Metrics, health: Health, port: int) -> web.AppRunner:
    """Start the HTTP endpoint: /metrics, /healthz, /readyz."""

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_health(_: web.Request) -> web.Response:
        dead = health.dead()
        return web.Response(status=500 if dead else 200, text=f"dead: {', '.join(dead)}" if dead else "ok")

    async def show_ready(_: web.Request) -> web.Response:
        return web.Response(status=200 if health.ready() else 503, text="ok" if health.ready() else "waiting for lists")

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", show_metrics), web.get("/healthz", show_health), web.get("/readyz", show_ready)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
