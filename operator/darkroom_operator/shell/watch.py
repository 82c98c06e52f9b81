"""Kopf's part: the process, its signals, and the watch of TrainingJobs. Nothing else imports Kopf.

Only the stateless `on.event` is used: it stores the newest body and puts the key on the queue. There are no finalizers, no
annotations, no handlers with state (docs/adr/0002).
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import kopf

from darkroom_api import names
from darkroom_operator.shell.client import TIMEOUT, TRAINING_JOBS, ApiError, Client
from darkroom_operator.shell.endpoint import Endpoint
from darkroom_operator.shell.settings import Settings
from darkroom_operator.shell.store import Store, key_of

log = logging.getLogger(__name__)


class Backoffs:
    """Waits between Kopf's retries: endless, because running out of them would end the process."""

    def __iter__(self) -> Iterator[float]:
        """Each request starts anew."""
        for attempt in range(10**9):
            yield min(30.0, 0.5 * 2.0 ** min(attempt, 6)) * random.uniform(0.8, 1.2)  # noqa: S311


class StreamActivity:
    """When Kopf's watch was last heard: Kopf itself does not say.

    A watch is opened anew at least every `watch_seconds`; a watcher that died or hangs stops doing so.
    """

    def __init__(self) -> None:
        self.last_activity = time.monotonic()

    def trace(self) -> aiohttp.TraceConfig:
        """Hooks for the session that Kopf watches with."""
        config = aiohttp.TraceConfig()

        async def answered(_session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
            if params.response.status == 200 and params.url.path.endswith(f"/{TRAINING_JOBS.plural}"):
                self.last_activity = time.monotonic()

        config.on_request_end.append(answered)
        return config


def registry(store: Store, endpoint: Endpoint, settings: Settings, activity: StreamActivity) -> kopf.OperatorRegistry:
    """Kopf's handlers: settings, login, and one event handler without IO."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings, watch_seconds, silence_seconds)

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # a new session each time: Kopf closes the one it has when the API server answers 401
        return kopf.AiohttpSession(
            server=endpoint.server, aiohttp_session=endpoint.session(trace_configs=[activity.trace()])
        )

    @kopf.on.event(names.GROUP, names.VERSION, TRAINING_JOBS.plural, registry=handlers)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        body = json.loads(json.dumps(event["object"]))  # Kopf's own is a view that it goes on changing
        activity.last_activity = time.monotonic()
        if event["type"] == "DELETED":
            store.remove(key_of(body), body["metadata"]["uid"])
        else:
            store.put(body)

    watch_seconds, silence_seconds = settings.watch_seconds, settings.silence_seconds
    return handlers


def _configure(settings: kopf.OperatorSettings, watch_seconds: float, silence_seconds: float) -> None:
    settings.peering.standalone = True
    settings.scanning.disabled = True  # needs no right to list CRDs and namespaces
    settings.posting.enabled = False
    settings.networking.request_timeout = TIMEOUT
    settings.networking.error_backoffs = Backoffs()
    settings.watching.server_timeout = max(1, round(watch_seconds))  # goes into the URL: whole seconds
    settings.watching.inactivity_timeout = silence_seconds
    settings.watching.chunk_size = 500
    settings.watching.reconnect_backoff = 1.0


async def run(handlers: kopf.OperatorRegistry, settings: Settings, stop: asyncio.Event) -> None:
    """Kopf, until `stop` or until it gives up. It handles SIGTERM itself and ends; that is then our `stop` too."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line per event otherwise
    await kopf.operator(
        registry=handlers,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        stop_flag=stop,
    )
    stop.set()


async def resync(client: Client, store: Store, settings: Settings) -> None:
    """List all jobs now and then: Kopf does not tell of those that vanished while its watch was broken."""
    while True:
        await asyncio.sleep(settings.resync_seconds * random.uniform(0.9, 1.1))  # noqa: S311
        for namespace in settings.namespaces or (None,):
            try:
                bodies, version = await client.list(TRAINING_JOBS, namespace)
            except ApiError as error:
                log.warning("resync of TrainingJobs: %s", error)
                continue
            store.replace(bodies, version, namespace)
        store.touch_all()
