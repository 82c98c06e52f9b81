"""The operator, wired in the order in which it starts."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from darkroom_operator.core.training_job.plan import plan
from darkroom_operator.shell import log as logs
from darkroom_operator.shell import metrics as observability
from darkroom_operator.shell import watch
from darkroom_operator.shell.cache import Cache, Key
from darkroom_operator.shell.client import JOBS, PODS, SERVICES, TRAINING_JOBS, Client, Resource
from darkroom_operator.shell.endpoint import find_endpoint
from darkroom_operator.shell.profiles import Profiles
from darkroom_operator.shell.queue import KeyedQueue
from darkroom_operator.shell.reconcile import Caches, Reconciler
from darkroom_operator.shell.settings import Settings
from darkroom_operator.shell.store import Store

log = logging.getLogger("darkroom")
GOODBYE_SECONDS = 10.0
Parts = dict[str, Coroutine[Any, Any, None]]


async def run(settings: Settings) -> None:
    """Everything, until SIGTERM or until a part of it dies."""
    endpoint = find_endpoint()
    metrics, health = observability.Metrics(), observability.Health(settings.stale_seconds)
    client = Client(endpoint, metrics.count_request)

    def enqueue(key: Key) -> None:
        queue.add(key)

    store = Store(enqueue)
    profiles = Profiles(settings.profiles, store.touch_all, metrics)
    profiles.load()
    caches = Caches(
        jobs=_caches(client, JOBS, enqueue, settings),
        pods=_caches(client, PODS, enqueue, settings),
        services=_caches(client, SERVICES, enqueue, settings),
    )
    reconciler = Reconciler(client, store, caches, profiles, metrics, plan=plan, reporter=socket.gethostname())
    queue: KeyedQueue[Key] = KeyedQueue(reconciler, metrics, workers=settings.workers)
    reconciler.queue = queue
    activity = watch.StreamActivity()
    _observe(health, metrics, caches, store, activity)
    server = await observability.serve(metrics, health, settings.metrics_port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    parts = {
        "queue": queue.run(),
        "profiles": profiles.run(),
        "resync": watch.resync(client, store, settings),
        "kopf": watch.run(watch.registry(store, endpoint, settings, activity), settings, stop),
        **{f"cache {cache.name}": cache.run() for cache in caches.all()},
    }
    try:
        await _run_until(stop, parts, queue)
    finally:
        await server.cleanup()
        await client.close()


def _caches(client: Client, resource: Resource, enqueue: Callable[[Key], None], settings: Settings) -> list[Cache]:
    departed = resource is PODS  # exit codes of pods that are gone
    return [
        Cache(client, resource, namespace, enqueue, settings, keep_departed=departed)
        for namespace in settings.namespaces or (None,)
    ]


def _observe(
    health: observability.Health,
    metrics: observability.Metrics,
    caches: Caches,
    store: Store,
    activity: watch.StreamActivity,
) -> None:
    health.watch_stream(TRAINING_JOBS.plural, lambda: activity.last_activity)
    for cache in caches.all():
        health.watch_stream(cache.name, lambda cache=cache: cache.last_activity)  # type: ignore[misc]
        health.wait_for(cache.synced.is_set)
    metrics.registry.register(observability.JobStates(store.bodies))
    metrics.registry.register(observability.StreamAges(health.ages))


async def _run_until(stop: asyncio.Event, parts: Parts, queue: KeyedQueue[Key]) -> None:
    """Run all parts; the end of one that was not asked to end is an error of the whole."""
    tasks = {asyncio.create_task(part, name=name) for name, part in parts.items()}
    waiting = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            ended = next(task for task in tasks if task.done())
            reason = ended.exception() if not ended.cancelled() else None
            raise RuntimeError(f"{ended.get_name()} ended by itself{_hint(reason)}") from reason
        log.info("asked to stop; finishing what is under way")
        await queue.drain(GOODBYE_SECONDS)
    finally:
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.wait(tasks, timeout=GOODBYE_SECONDS)


def _hint(reason: BaseException | None) -> str:
    text = f": {reason}" if reason else ""
    if "404" in text:
        text += "; is the CRD trainingjobs.darkroom.dev installed? The chart brings it"
    return text


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
