"""Prometheus metrics and health. Labels are bounded: namespace, profile, state, result, reason; never a job's name."""

import platform
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

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
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from darkroom_operator.core import accounting
from darkroom_operator.core.types import Body

TRAINING_JOBS, TUNING_SWEEPS = "trainingjobs", "tuningsweeps"
"""Names of the queues."""
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asked for
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)


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
        build.labels(_version_of("darkroom"), _version_of("kopf"), platform.python_version()).set(1)
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
        self.trial_hours = Counter(
            "darkroom_trial_accelerator_hours",
            "Accelerator-hours of those",
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
        self.certificate_expiry = Gauge(
            "darkroom_reports_certificate_expiry_timestamp_seconds", "End of the certificate in use", registry=here
        )
        self.node_hours = self._of_place("darkroom_node_hours", "Pod-hours of attempts that ended")
        self.accelerator_hours = self._of_place(
            "darkroom_accelerator_hours", "Accelerator-hours of attempts that ended"
        )
        self.cost = self._of_place(
            "darkroom_cost", "Price of attempts that ended, in the profile's currency", "currency"
        )
        self.time = self._of_place("darkroom_time_seconds", "Wall clock of attempts that ended, by bucket", "bucket")
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

    def count_request(self, verb: str, resource: str, code: int) -> None:
        """Told by the client of every answer."""
        self.requests.labels(verb, resource, str(code)).inc()

    def count_endings(self, body: Body, old: Body, new: Body) -> None:
        """Told when a status has been stored: attempts and jobs that it ends are counted once."""
        place = (body["metadata"]["namespace"], body["spec"].get("profile", "default"))
        known = {a["uid"] for a in old.get("attempts", []) if a.get("endTime")}
        for attempt in new.get("attempts", []):
            if attempt.get("endTime") and attempt["uid"] not in known:
                self.attempts.labels(*place, attempt["result"], attempt.get("reason", "")).inc()
        self._count_spending(place, accounting.growth(old, new))
        if new.get("finished") and not old.get("finished"):
            reason = next((c["reason"] for c in new["conditions"] if c["type"] == "Ready"), "")
            self.finished.labels(*place, new["state"], reason).inc()

    def _count_spending(self, place: tuple[str, str], more: accounting.Growth) -> None:
        self.node_hours.labels(*place).inc(more.node_hours)
        self.accelerator_hours.labels(*place).inc(more.gpu_hours)
        if more.cost:
            self.cost.labels(*place, more.currency).inc(more.cost)
        for bucket, seconds in more.seconds.items():
            self.time.labels(*place, bucket).inc(seconds)

    def count_trials(self, body: Body, old: Body, new: Body) -> None:
        """Told when a sweep's status has been stored: trials and sweeps that it ends are counted once."""
        namespace = body["metadata"]["namespace"]
        algorithm = body["spec"].get("algorithm", {}).get("name", "Auto")
        known = {row["number"] for row in old.get("ledger", [])}
        for row in new.get("ledger", []):
            if row["number"] not in known:
                labels = (namespace, algorithm, row["result"])
                self.trials.labels(*labels).inc()
                self.trial_hours.labels(*labels).inc(float(row.get("gpuHours", 0)))
        if new.get("finished") and not old.get("finished"):
            reason = next((c["reason"] for c in new["conditions"] if c["type"] == "Ready"), "")
            self.sweeps_finished.labels(namespace, new["state"], reason).inc()


def _histogram(name: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, ["name"], buckets=_BUCKETS, registry=registry)


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


class LeaderStatus(Collector):
    """client-go's gauge of an election."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads = leads

    def collect(self) -> Iterator[Metric]:
        """One gauge."""
        family = GaugeMetricFamily("leader_election_master_status", "1: this process leads", labels=["name"])
        family.add_metric((TRAINING_JOBS,), float(self._leads()))
        yield family


class WorkUnderWay(Collector):
    """What client-go tells of work that has not ended: a stuck worker shows here first."""

    def __init__(self, running: Mapping[str, Callable[[], list[float]]]) -> None:
        self._running = running

    def collect(self) -> Iterator[Metric]:
        """Two gauges."""
        unfinished = GaugeMetricFamily(
            "workqueue_unfinished_work_seconds", "Age of all work under way, summed", labels=["name"]
        )
        longest = GaugeMetricFamily(
            "workqueue_longest_running_processor_seconds", "Age of the oldest work", labels=["name"]
        )
        for queue, running in self._running.items():
            seconds = running()
            unfinished.add_metric((queue,), sum(seconds))
            longest.add_metric((queue,), max(seconds, default=0.0))
        yield from (unfinished, longest)


class JobStates(Collector):
    """TrainingJobs by namespace, profile and state, counted when somebody asks."""

    def __init__(self, bodies: Callable[[], Iterable[Body]]) -> None:
        self._bodies = bodies

    def collect(self) -> Iterator[Metric]:
        """One gauge."""
        family = GaugeMetricFamily(
            "darkroom_trainingjobs", "TrainingJobs that exist", labels=["namespace", "profile", "state"]
        )
        tally = Tally(
            (
                body["metadata"]["namespace"],
                body.get("spec", {}).get("profile", "default"),
                body.get("status", {}).get("state", "Pending"),
            )
            for body in self._bodies()
        )
        for place, count in tally.items():
            family.add_metric(place, count)
        yield family


class SweepStates(Collector):
    """TuningSweeps by namespace and state, and what each has found, counted when somebody asks.

    The one place where an object's name is a label: a best value means nothing without its sweep. Sweeps are few.
    """

    def __init__(self, bodies: Callable[[], Iterable[Body]]) -> None:
        self._bodies = bodies

    def collect(self) -> Iterator[Metric]:
        """Two gauges."""
        states = GaugeMetricFamily("darkroom_tuningsweeps", "TuningSweeps that exist", labels=["namespace", "state"])
        best = GaugeMetricFamily(
            "darkroom_tuningsweep_best", "Best value of the objective", labels=["namespace", "sweep", "metric"]
        )
        tally: Tally[tuple[str, str]] = Tally()
        for body in self._bodies():
            meta, status = body["metadata"], body.get("status", {})
            tally[meta["namespace"], status.get("state", "Pending")] += 1
            if "best" in status:
                metric = body["spec"]["objectives"][0]["metric"]
                best.add_metric((meta["namespace"], meta["name"], metric), float(status["best"]["value"]))
        for place, count in tally.items():
            states.add_metric(place, count)
        yield from (states, best)


class StreamAges(Collector):
    """Seconds since each stream of the API server was last heard."""

    def __init__(self, ages: Callable[[], Mapping[str, float]]) -> None:
        self._ages = ages

    def collect(self) -> Iterator[Metric]:
        """One gauge."""
        family = GaugeMetricFamily(
            "darkroom_watch_last_activity_seconds", "Age of the last sign of life", labels=["resource"]
        )
        for name, age in self._ages().items():
            family.add_metric((name,), age)
        yield family


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
