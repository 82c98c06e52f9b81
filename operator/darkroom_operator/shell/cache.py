"""A cache of one kind of children by list and watch: what the API server has, as of a moment ago.

A list replaces everything, so objects that vanished while a watch was broken vanish here too. Answers to our own writes are
put in at once; an older picture never overwrites a newer one. resourceVersions are compared as the numbers that the API
server promises them to be since Kubernetes 1.35, and that they have always been with etcd.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from darkroom_api import names
from darkroom_operator.core.trimming import is_same, trimmed
from darkroom_operator.core.types import Body
from darkroom_operator.shell.backoff import Backoff
from darkroom_operator.shell.client import ApiError, Client, Resource
from darkroom_operator.shell.settings import Settings

log = logging.getLogger(__name__)
Key = tuple[str, str]
"""Namespace and name of a TrainingJob."""
DEPARTED_SECONDS = 600.0


@dataclass
class Shelf:
    """Children of one TrainingJob: by UID, with those that are gone for a while."""

    present: dict[str, Body] = field(default_factory=dict)
    departed: dict[str, tuple[float, Body]] = field(default_factory=dict)


class Cache:
    """Objects of one resource with our label, in one namespace or all of them."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str | None,
        on_change: Callable[[Key], None],
        settings: Settings,
        *,
        keep_departed: bool = False,
    ) -> None:
        self._client, self.resource, self.namespace, self._on_change = client, resource, namespace, on_change
        self._settings, self._keep_departed = settings, keep_departed
        self._shelves: dict[Key, Shelf] = defaultdict(Shelf)
        self._homes: dict[str, Key] = {}
        self._gone: dict[str, int] = {}
        self._version: str | None = None
        self.synced = asyncio.Event()
        self.last_activity = time.monotonic()

    @property
    def name(self) -> str:
        """For metrics and health: `pods` or `pods/namespace`."""
        return f"{self.resource.plural}/{self.namespace}" if self.namespace else self.resource.plural

    def present(self, key: Key) -> tuple[Body, ...]:
        """Objects that exist."""
        return tuple(self._shelves[key].present.values()) if key in self._shelves else ()

    def find(self, uid: str) -> Body | None:
        """The object with this UID, if it exists."""
        home = self._homes.get(uid)
        return self._shelves[home].present[uid] if home else None

    def departed(self, key: Key) -> tuple[Body, ...]:
        """Last pictures of objects that went less than ten minutes ago."""
        if key not in self._shelves:
            return ()
        limit = time.monotonic() - DEPARTED_SECONDS
        shelf = self._shelves[key]
        shelf.departed = {uid: entry for uid, entry in shelf.departed.items() if entry[0] > limit}
        return tuple(body for _, body in shelf.departed.values())

    def forget(self, key: Key) -> None:
        """The TrainingJob is gone: nobody asks for its departed any more."""
        if key in self._shelves and not self._shelves[key].present:
            del self._shelves[key]

    def put(self, body: Body) -> None:
        """Take in a picture, unless a newer one, or the object's end, is known."""
        body = trimmed(body, self.resource.kind)
        uid, version = body["metadata"]["uid"], _version(body)
        key, home = _key(body), self._homes.get(uid)
        known = self._shelves[home].present[uid] if home else None
        if self._gone.get(uid, -1) >= version or (known is not None and _version(known) >= version):
            return
        if home and home != key:  # somebody changed the label
            self._shelves[home].present.pop(uid)
            self._on_change(home)
        self._homes[uid] = key
        self._shelves[key].present[uid] = body
        if known is None or not is_same(known, body):
            self._on_change(key)

    def _remove(self, body: Body) -> None:
        uid = body["metadata"]["uid"]
        self._gone[uid] = _version(body)
        while len(self._gone) > 10_000:  # oldest first: dicts keep their order
            self._gone.pop(next(iter(self._gone)))
        key = self._homes.pop(uid, None)
        if key is None:
            return
        shelf = self._shelves[key]
        del shelf.present[uid]
        if self._keep_departed:
            shelf.departed[uid] = (time.monotonic(), trimmed(body, self.resource.kind))
        elif not shelf.present:
            del self._shelves[key]
        self._on_change(key)

    async def run(self) -> None:
        """List and watch for ever; every failure is waited out, however long it lasts."""
        backoff = Backoff(lasting=min(5.0, self._settings.watch_seconds / 2))
        while True:
            began = time.monotonic()
            try:
                if self._version is None:
                    self._version = await self._list()
                await self._watch()
            except (ApiError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                if isinstance(error, ApiError) and error.code == 410:
                    self._version = None  # too old to go on from
                log.warning("%s: %s: %s", self.name, type(error).__name__, error)
            # also after a clean end: a proxy that closes at once must not make this a hot loop
            await asyncio.sleep(backoff.after(time.monotonic() - began))

    async def _list(self) -> str:
        items, version = await self._client.list(self.resource, self.namespace, names.LABEL_JOB)
        self.last_activity = time.monotonic()
        listed = {item["metadata"]["uid"] for item in items}
        ghosts = [
            body
            for shelf in list(self._shelves.values())
            for uid, body in list(shelf.present.items())
            if uid not in listed and _version(body) <= int(version)
        ]
        for ghost in ghosts:
            self._remove(ghost)
        for item in items:
            self.put(item)
        self.synced.set()
        return version

    async def _watch(self) -> None:
        """Follow changes from the last version seen, until the API server ends the request."""
        began = time.monotonic()
        async for event in self._client.watch(
            self.resource,
            self.namespace,
            names.LABEL_JOB,
            version=str(self._version),
            seconds=self._settings.watch_seconds,
            silence=self._settings.silence_seconds,
        ):
            self.last_activity = time.monotonic()
            if event["type"] == "ERROR":
                status = event["object"]
                raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
            self._take(event["type"], event["object"])
            self._version = event["object"]["metadata"]["resourceVersion"]
        if time.monotonic() - began > 1.0:  # one that is closed at once is no sign of life
            self.last_activity = time.monotonic()

    def _take(self, kind: str, body: Body) -> None:
        if kind in ("ADDED", "MODIFIED"):
            self.put(body)
        elif kind == "DELETED":
            self._remove(body)


def _version(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])


def _key(body: Body) -> Key:
    meta = body["metadata"]
    return meta["namespace"], meta["labels"][names.LABEL_JOB]
