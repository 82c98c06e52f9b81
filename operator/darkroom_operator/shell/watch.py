"""Kopf's part: the process, its signals, and the watch of TrainingJobs and TuningSweeps. Nothing else imports Kopf.

Only the stateless `on.event` is used: it stores the newest body and puts the key on the queue. There are no finalizers, no
annotations, no handlers with state (docs/adr/0002).
"""

import asyncio
import json
import logging
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import aiohttp
import kopf

from darkroom_api import names
from darkroom_operator.core.trimming import trimmed
from darkroom_operator.shell.backoff import Backoff
from darkroom_operator.shell.client import TIMEOUT, TRAINING_JOBS, TUNING_SWEEPS, ApiError, Client, Resource
from darkroom_operator.shell.endpoint import Endpoint
from darkroom_operator.shell.settings import Settings
from darkroom_operator.shell.store import Store, key_of

log = logging.getLogger(__name__)
OUR_KINDS = (TRAINING_JOBS, TUNING_SWEEPS)


class Backoffs:
    """Waits between Kopf's retries: endless, because running out of them would end the process."""

    def __iter__(self) -> Iterator[float]:
        """Each request starts anew."""
        for attempt in range(10**9):
            yield min(30.0, 0.5 * 2.0 ** min(attempt, 6)) * random.uniform(0.8, 1.2)  # noqa: S311


class StreamActivity:
    """When Kopf's watches were last heard: Kopf itself does not say.

    A watch is opened anew at least every `watch_seconds`; a watcher that died or hangs stops doing so.
    """

    def __init__(self, namespaces: Iterable[str]) -> None:
        now = time.monotonic()
        self._heard = {kind.path(namespace): now for kind in OUR_KINDS for namespace in namespaces or (None,)}

    def streams(self) -> dict[str, Callable[[], float]]:
        """For each watch, by name, how to ask when it was last heard."""
        return {_stream_name(path): lambda path=path: self._heard[path] for path in self._heard}  # type: ignore[misc]

    def heard(self, path: str) -> None:
        """A sign of life on this URL path."""
        if path in self._heard:
            self._heard[path] = time.monotonic()

    def heard_about(self, kind: Resource, namespace: str) -> None:
        """An event about an object of this kind in this namespace."""
        self.heard(kind.path(namespace))
        self.heard(kind.path())

    def heard_of(self, kind: Resource) -> None:
        """An answer about this kind, in whatever namespace."""
        for path in self._heard:
            if path.endswith(f"/{kind.plural}"):
                self.heard(path)

    def trace(self) -> aiohttp.TraceConfig:
        """Hooks for the session that Kopf watches with."""
        config = aiohttp.TraceConfig()

        async def answered(_session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
            if params.response.status in (200, 404):  # 404: nothing to watch, says an API server that is alive
                self.heard(params.url.path)

        config.on_request_end.append(answered)
        return config


def _stream_name(path: str) -> str:
    *_, before, namespace, plural = path.split("/")
    return f"{plural}/{namespace}" if before == "namespaces" else plural


class NoDiffs(kopf.DiffBaseStorage):
    """Kopf copies each object twice to find what its handlers for changes would be told; there are none."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Of any object."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing is."""


class Pace:
    """Keeps Kopf from opening watches without a pause: it does so when a proxy closes each of them at once."""

    def __init__(self) -> None:
        self._opened: dict[str, float] = {}
        self._backoffs: dict[str, Backoff] = {}

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """The middleware: an orderly watch is never kept waiting."""
        if request.url.query.get("watch"):
            await self.wait(request.url.path)
            if request.session.closed:  # another watch was answered with 401 meanwhile, and Kopf has logged in anew
                raise RuntimeError("Session is closed")
        return await handler(request)

    async def wait(self, path: str) -> None:
        """Return at once if the last call was long ago."""
        lived = time.monotonic() - self._opened.get(path, -3600.0)
        pause = self._backoffs.setdefault(path, Backoff()).after(lived)
        if lived < pause:
            await asyncio.sleep(pause - lived)
        self._opened[path] = time.monotonic()


async def missing_is_passing(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A middleware: to Kopf, a CRD that was removed is the end. To us it is a failure of the kind that is tried again."""
    response = await handler(request)
    if response.status == 404:
        for kind in OUR_KINDS:
            if request.url.path.endswith(f"/{kind.plural}"):
                response.release()
                raise aiohttp.ClientConnectionError(_missing(kind))
    return response


def _missing(kind: Resource) -> str:
    return f"the CRD {kind.plural}.{names.GROUP} is not installed; waiting for it"


def registry(
    stores: Mapping[Resource, Store], endpoint: Endpoint, settings: Settings, activity: StreamActivity
) -> kopf.OperatorRegistry:
    """Kopf's handlers: settings, login, and one event handler without IO for each kind."""
    handlers = kopf.OperatorRegistry()
    watch_seconds, silence_seconds = settings.watch_seconds, settings.silence_seconds
    pace = Pace()

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings, watch_seconds, silence_seconds)

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # a new session each time: Kopf closes the one it has when the API server answers 401
        await pace.wait("login")
        session = endpoint.session(pace, missing_is_passing, connections=0, trace_configs=[activity.trace()])
        return kopf.AiohttpSession(server=endpoint.server, aiohttp_session=session)

    for kind, store in stores.items():
        _listen(handlers, kind, store, activity)
    return handlers


def _listen(handlers: kopf.OperatorRegistry, kind: Resource, store: Store, activity: StreamActivity) -> None:
    @kopf.on.event(names.GROUP, names.VERSION, kind.plural, registry=handlers, id=kind.plural)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        body = json.loads(json.dumps(trimmed(event["object"])))  # Kopf's own is a view that it goes on changing
        activity.heard_about(kind, body["metadata"]["namespace"])
        if event["type"] == "DELETED":
            store.remove(key_of(body), body["metadata"]["uid"])
        else:
            store.put(body)


def _configure(settings: kopf.OperatorSettings, watch_seconds: float, silence_seconds: float) -> None:
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = NoDiffs()
    settings.scanning.disabled = True  # needs no right to list CRDs and namespaces
    settings.posting.enabled = False
    settings.networking.request_timeout = TIMEOUT
    settings.networking.error_backoffs = Backoffs()
    settings.watching.server_timeout = max(1, round(watch_seconds))  # goes into the URL: whole seconds
    settings.watching.inactivity_timeout = silence_seconds
    settings.watching.chunk_size = 500
    settings.watching.reconnect_backoff = 1.0


async def run(
    handlers: kopf.OperatorRegistry,
    settings: Settings,
    stop: asyncio.Event,
    on_signal: Callable[[], None],
    wait_for: Iterable[asyncio.Event] = (),
) -> None:
    """Kopf, until `stop`. It ends all tasks that are younger than itself, so start the others first and stop it last.

    It looks once at which kinds there are, so it begins when `wait_for` are set: when both CRDs have been seen.
    """
    if not await _all_set(wait_for, unless=stop):
        return
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line per event otherwise
    elder = asyncio.all_tasks()
    identity: Any = names.FIELD_MANAGER  # Kopf would ask for the user's name, and a pod's user has none
    tasks = await kopf.spawn_tasks(
        registry=handlers,
        standalone=True,
        identity=identity,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        stop_flag=stop,
    )
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # Kopf has just taken them, and would end in the middle of our writes
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await kopf.run_tasks(tasks, ignored=elder)


async def _all_set(events: Iterable[asyncio.Event], *, unless: asyncio.Event) -> bool:
    wanted: asyncio.Future[Any] = asyncio.gather(*(event.wait() for event in events))
    other: asyncio.Future[Any] = asyncio.ensure_future(unless.wait())
    try:
        await asyncio.wait({wanted, other}, return_when=asyncio.FIRST_COMPLETED)
        return wanted.done()
    finally:
        wanted.cancel()
        other.cancel()


async def resync(client: Client, kind: Resource, store: Store, settings: Settings, activity: StreamActivity) -> None:
    """List all objects of a kind, and again now and then: Kopf does not tell of those that vanished in a broken watch.

    A CRD that is not there is waited for, and the wait counts as a sign of life.
    """
    backoff = Backoff()
    while True:
        try:
            await _list_all(client, kind, store, settings)
        except ApiError as error:
            if error.code == 404:
                log.warning(_missing(kind))
                activity.heard_of(kind)
            else:
                log.warning("listing %s: %s", kind.plural, error)
            await asyncio.sleep(backoff.after(0.0))
            continue
        store.synced.set()
        store.touch_all()
        backoff = Backoff()
        await asyncio.sleep(settings.resync_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load


async def _list_all(client: Client, kind: Resource, store: Store, settings: Settings) -> None:
    for namespace in settings.namespaces or (None,):
        bodies, version = await client.list(kind, namespace)
        store.replace(bodies, version, namespace)
