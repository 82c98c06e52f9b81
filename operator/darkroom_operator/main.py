"""The operator, wired in the order in which it starts."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from darkroom_operator.core.lease import Timing
from darkroom_operator.core.training_job.plan import plan
from darkroom_operator.core.types import Channel
from darkroom_operator.shell import log as logs
from darkroom_operator.shell import metrics as observability
from darkroom_operator.shell import watch
from darkroom_operator.shell.cache import Cache, Key
from darkroom_operator.shell.certificates import Certificates
from darkroom_operator.shell.client import JOBS, NETWORK_POLICIES, PODS, SERVICES, Client, Resource
from darkroom_operator.shell.endpoint import find_endpoint
from darkroom_operator.shell.inbox import Inbox
from darkroom_operator.shell.lease import Alone, Elector, Leadership
from darkroom_operator.shell.profiles import Profiles
from darkroom_operator.shell.queue import KeyedQueue
from darkroom_operator.shell.reconcile import Caches, Reconciler
from darkroom_operator.shell.reports import Reports
from darkroom_operator.shell.settings import Settings
from darkroom_operator.shell.store import Store
from darkroom_operator.shell.tokens import Tokens

log = logging.getLogger("darkroom")
GOODBYE_SECONDS = 10.0


async def run(settings: Settings) -> None:
    """Everything, until SIGTERM or until a part of it dies."""
    endpoint = find_endpoint()
    metrics, health = observability.Metrics(), observability.Health(settings.stale_seconds)
    unfenced = Client(endpoint, metrics.count_request)  # for the lease, and the certificate that any replica may make
    leadership = _leadership(unfenced, settings)
    client = Client(endpoint, metrics.count_request, leadership.leads)

    def enqueue(key: Key) -> None:
        queue.add(key)

    store = Store(enqueue)
    profiles = Profiles(settings.profiles, store.touch_all, metrics)
    profiles.load()
    caches = Caches(
        jobs=_caches(client, JOBS, enqueue, settings),
        pods=_caches(client, PODS, enqueue, settings),
        services=_caches(client, SERVICES, enqueue, settings),
        network_policies=_caches(client, NETWORK_POLICIES, enqueue, settings),
    )
    inbox = Inbox()
    reconciler = Reconciler(
        client,
        store,
        caches,
        profiles,
        metrics,
        plan=plan,
        reporter=socket.gethostname(),
        leads=leadership.leads,
        inbox=inbox,
    )
    queue: KeyedQueue[Key] = KeyedQueue(reconciler, metrics, workers=settings.workers)
    reconciler.queue = queue
    activity = watch.StreamActivity(settings.namespaces)
    _observe(health, metrics, caches, store, activity, leadership)
    metrics.registry.register(observability.WorkUnderWay(queue.running))
    server = await observability.serve(metrics, health, settings.metrics_port)
    asked, kopf_stop = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    parts = {
        "queue": queue.run(),
        "profiles": profiles.run(),
        "resync": watch.resync(client, store, settings),
        **{f"cache {cache.name}": cache.run() for cache in caches.all()},
    }
    if settings.reports_address:
        ready = _both(health.ready, leadership.leads)
        reports = Reports(inbox, Tokens(client), caches, store, profiles, metrics, enqueue=enqueue, ready=ready)
        parts |= _report_channel(unfenced, reports, inbox, metrics, settings)
    kopf = watch.run(watch.registry(store, endpoint, settings, activity), settings, kopf_stop, asked.set)
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]

    def on_leading() -> None:
        inbox.listening_since = datetime.now(UTC)
        store.touch_all()

    election = asyncio.create_task(leadership.run(on_leading), name="election")
    last = asyncio.create_task(kopf, name="kopf")  # it ends every task that is younger than itself
    try:
        await _first_end(asked, {*tasks, election, last})
        log.info("asked to stop; finishing what is under way")
        await queue.drain(GOODBYE_SECONDS)
    finally:
        await _cancel(tasks)
        await _cancel([election])  # it gives the lease away, and nothing here may write after that
        await server.cleanup()
        kopf_stop.set()
        await asyncio.wait({last}, timeout=GOODBYE_SECONDS)
        await _cancel([last])
        await client.close()
        await unfenced.close()


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
    store: Store,
    activity: watch.StreamActivity,
    leadership: Leadership,
) -> None:
    for name, heard in activity.streams().items():
        health.watch_stream(name, heard)
    health.wait_for(store.synced.is_set)
    for cache in caches.all():
        health.watch_stream(cache.name, lambda cache=cache: cache.last_activity)  # type: ignore[misc]
        health.wait_for(cache.synced.is_set)
    # by the leader alone, so that a sum over all replicas counts each job once
    metrics.registry.register(observability.JobStates(lambda: store.bodies() if leadership.leads() else []))
    metrics.registry.register(observability.LeaderStatus(leadership.leads))
    metrics.registry.register(observability.StreamAges(health.ages))


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
