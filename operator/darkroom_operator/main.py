"""The operator, wired in the order in which it starts."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from aiohttp import web

from darkroom_operator.core import series
from darkroom_operator.core.lease import Timing
from darkroom_operator.core.training_job.plan import plan
from darkroom_operator.core.tuning_sweep.plan import plan as plan_sweep
from darkroom_operator.core.types import Body, Channel
from darkroom_operator.shell import collectors, watch
from darkroom_operator.shell import log as logs
from darkroom_operator.shell import metrics as observability
from darkroom_operator.shell.cache import Cache, Key
from darkroom_operator.shell.certificates import Certificates
from darkroom_operator.shell.client import (
    JOBS,
    NETWORK_POLICIES,
    PODS,
    SERVICES,
    TRAINING_JOBS,
    TUNING_SWEEPS,
    Client,
    Resource,
)
from darkroom_operator.shell.clock import Clock
from darkroom_operator.shell.discovery import Discovery
from darkroom_operator.shell.endpoint import find_endpoint
from darkroom_operator.shell.inbox import Inbox
from darkroom_operator.shell.lease import Alone, Elector, Leadership
from darkroom_operator.shell.profiles import Profiles
from darkroom_operator.shell.queue import KeyedQueue
from darkroom_operator.shell.reconcile import Caches, Reconciler
from darkroom_operator.shell.reports import Reports
from darkroom_operator.shell.settings import Settings
from darkroom_operator.shell.store import Store
from darkroom_operator.shell.sweeps import SweepReconciler, Trials
from darkroom_operator.shell.tokens import Tokens
from darkroom_operator.shell.tracing import Tracing, otlp

log = logging.getLogger("darkroom")
GOODBYE_SECONDS = 10.0


async def run(settings: Settings) -> None:
    """Everything, until SIGTERM or until a part of it dies."""
    endpoint, clock = find_endpoint(), Clock()
    metrics, health = observability.Metrics(), observability.Health(settings.stale_seconds)
    # for the lease, and the certificate that any replica may make
    unfenced = Client(endpoint, metrics.count_request, clock=clock)
    leadership = _leadership(unfenced, settings)
    client = Client(endpoint, metrics.count_request, leadership.leads, clock)

    def enqueue(key: Key) -> None:
        queue.add(key)

    def job_changed(key: Key) -> None:
        enqueue(key)
        trials.changed(key)

    def sweep_changed(key: Key) -> None:
        sweep_queue.add(key)

    store, sweeps = Store(job_changed), Store(sweep_changed)
    trials = Trials(store, sweep_changed)
    profiles = Profiles(settings.profiles, store.touch_all, metrics)
    profiles.load()
    caches = Caches(
        jobs=_caches(client, JOBS, enqueue, settings),
        pods=_caches(client, PODS, enqueue, settings),
        services=_caches(client, SERVICES, enqueue, settings),
        network_policies=_caches(client, NETWORK_POLICIES, enqueue, settings),
    )
    inbox, discovery = Inbox(), Discovery(client, store.touch_all, settings.discovery_seconds)
    tracing = _tracing(settings, metrics, enqueue)
    reconciler = Reconciler(
        client,
        store,
        caches,
        profiles,
        metrics,
        plan=plan,
        reporter=socket.gethostname(),
        discovery=discovery,
        leads=leadership.leads,
        inbox=inbox,
        tracing=tracing,
    )
    reconciler.queue = queue = KeyedQueue(reconciler, metrics, workers=settings.workers)
    sweep_queue = _sweep_queue(client, sweeps, store, trials, metrics, leadership, settings)
    activity = watch.StreamActivity(settings.namespaces)
    _observe(health, metrics, caches, discovery, store, sweeps, (queue, sweep_queue), activity, leadership, clock)
    server = await _show(metrics, health, profiles, store, sweeps, leadership.leads, clock.now, settings)
    asked, kopf_stop = _listen_for_the_end(), asyncio.Event()
    parts = {
        "queue": queue.run(),
        "sweep queue": sweep_queue.run(),
        "profiles": profiles.run(),
        "discovery": discovery.run(),
        "resync": watch.resync(client, TRAINING_JOBS, store, settings, activity),
        "sweep resync": watch.resync(client, TUNING_SWEEPS, sweeps, settings, activity),
        **{f"cache {cache.name}": cache.run() for cache in caches.all()},
        **({"tracing": tracing.run()} if tracing else {}),
    }
    if settings.reports_address:
        ready, tokens = _both(health.ready, leadership.leads), Tokens(client)
        reports = Reports(inbox, tokens, caches, store, profiles, metrics, enqueue=enqueue, ready=ready, now=clock.now)
        parts |= _report_channel(unfenced, reports, inbox, metrics, settings)
    handlers = watch.registry({TRAINING_JOBS: store, TUNING_SWEEPS: sweeps}, endpoint, settings, activity)
    kopf = watch.run(handlers, settings, kopf_stop, asked.set, (store.synced, sweeps.synced))
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    election = asyncio.create_task(leadership.run(_on_leading(clock.now, inbox, store, sweeps)), name="election")
    last = asyncio.create_task(kopf, name="kopf")  # it ends every task that is younger than itself
    try:
        await _first_end(asked, {*tasks, election, last})
        log.info("asked to stop; finishing what is under way")
        await asyncio.gather(queue.drain(GOODBYE_SECONDS), sweep_queue.drain(GOODBYE_SECONDS))
    finally:
        await _cancel(tasks)
        await _cancel([election])  # it gives the lease away, and nothing here may write after that
        await server.cleanup()
        kopf_stop.set()
        await asyncio.wait({last}, timeout=GOODBYE_SECONDS)
        await _cancel([last])
        await asyncio.gather(client.close(), unfenced.close())


def _sweep_queue(
    client: Client,
    sweeps: Store,
    jobs: Store,
    trials: Trials,
    metrics: observability.Metrics,
    leadership: Leadership,
    settings: Settings,
) -> KeyedQueue[Key]:
    """The queue of TuningSweeps, with what works on them."""
    reporter, leads = socket.gethostname(), leadership.leads
    searcher = SweepReconciler(client, sweeps, jobs, trials, metrics, plan=plan_sweep, reporter=reporter, leads=leads)
    name = observability.TUNING_SWEEPS
    searcher.queue = KeyedQueue(searcher, metrics, workers=settings.workers, name=name)
    return searcher.queue


def _tracing(settings: Settings, metrics: observability.Metrics, on_sent: Callable[[Key], None]) -> Tracing | None:
    return Tracing(otlp(settings.tracing_endpoint), metrics, on_sent) if settings.tracing_endpoint else None


def _listen_for_the_end() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked


def _on_leading(now: Callable[[], datetime], inbox: Inbox, *stores: Store) -> Callable[[], None]:
    """Look at everything; reports went elsewhere until now."""

    def look() -> None:
        inbox.listening_since = now()
        for store in stores:
            store.touch_all()

    return look


def _both(one: Callable[[], bool], other: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: one() and other()


def _leadership(client: Client, settings: Settings) -> Leadership:
    if not settings.lease:
        return Alone()
    namespace, name = settings.lease.split("/")
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"  # a restarted container keeps its pod's host name
    timing = Timing(settings.lease_seconds, settings.renew_seconds, settings.retry_seconds)
    return Elector(client, namespace, name, identity, timing)


def _caches(client: Client, resource: Resource, enqueue: Callable[[Key], None], settings: Settings) -> list[Cache]:
    departed = resource is PODS  # exit codes of pods that are gone
    return [
        Cache(client, resource, namespace, enqueue, settings, keep_departed=departed)
        for namespace in settings.namespaces or (None,)
    ]


def _report_channel(
    client: Client, reports: Reports, inbox: Inbox, metrics: observability.Metrics, settings: Settings
) -> dict[str, Coroutine[Any, Any, None]]:
    """Certificate and server; pods are told the address once the server can prove who it is."""

    def open_channel(authority: str) -> None:
        inbox.channel = Channel(settings.reports_address, authority)

    host = settings.reports_address.rpartition(":")[0]
    certificates = Certificates(client, settings.reports_secret, host, metrics, open_channel)
    return {"certificates": certificates.run(), "reports": reports.run(certificates, settings.reports_port)}


def _observe(
    health: observability.Health,
    metrics: observability.Metrics,
    caches: Caches,
    discovery: Discovery,
    store: Store,
    sweeps: Store,
    queues: tuple[KeyedQueue[Key], ...],
    activity: watch.StreamActivity,
    leadership: Leadership,
    clock: Clock,
) -> None:
    for name, heard in activity.streams().items():
        health.watch_stream(name, heard)
    health.wait_for(store.synced.is_set)
    health.wait_for(sweeps.synced.is_set)
    health.wait_for(discovery.synced.is_set)
    for cache in caches.all():
        health.watch_stream(cache.name, lambda cache=cache: cache.last_activity)  # type: ignore[misc]
        health.wait_for(cache.synced.is_set)
    metrics.registry.register(collectors.WorkUnderWay({queue.name: queue.running for queue in queues}))
    metrics.clock_skew.set_function(clock.skew)
    metrics.registry.register(collectors.LeaderStatus(leadership.leads))
    metrics.registry.register(collectors.StreamAges(health.ages))


async def _show(
    metrics: observability.Metrics,
    health: observability.Health,
    profiles: Profiles,
    store: Store,
    sweeps: Store,
    leads: Callable[[], bool],
    now: Callable[[], datetime],
    settings: Settings,
) -> web.AppRunner:
    """Serve it all; objects by the leader alone, so that a sum over all replicas counts each once."""

    def jobs() -> list[Body]:
        return store.bodies() if leads() else []

    def searches() -> list[Body]:
        return sweeps.bodies() if leads() else []

    def held(body: Body) -> series.Held:
        return series.held(body, profiles.current.get(body["spec"].get("profile", "default")))

    metrics.registry.register(collectors.JobStates(jobs, metrics.place, held))
    metrics.registry.register(collectors.SweepStates(searches))
    if limit := settings.object_series:
        keep = settings.object_series_seconds
        for bodies, families in ((jobs, series.OF_JOB), (searches, series.OF_SWEEP)):
            metrics.registry.register(
                collectors.ObjectSeries(bodies, families, limit=limit, keep_seconds=keep, now=now)
            )
    return await observability.serve(metrics, health, settings.metrics_port)


async def _first_end(asked: asyncio.Event, tasks: set[asyncio.Task[None]]) -> None:
    """Return when we are asked to stop; a part that ends before that is an error of the whole."""
    waiting = asyncio.create_task(asked.wait(), name="stop")
    try:
        done, _ = await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if waiting in done:
        return
    ended = done.pop()
    reason = ended.exception() if not ended.cancelled() else None
    raise RuntimeError(f"{ended.get_name()} ended by itself" + (f": {reason}" if reason else "")) from reason


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=GOODBYE_SECONDS)


def main() -> None:
    """Entry point: exit code 0 after SIGTERM, 1 if the environment is wrong or a part died."""
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        sys.exit(f"darkroom-operator: {error}")
    logs.set_up(settings.log_level, settings.log_format)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run(settings))
    except Exception:
        log.exception("the operator ends")
        sys.exit(1)
