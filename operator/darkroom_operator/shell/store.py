"""Objects of one of our kinds as last seen, whichever way they came: a watch event, a list, the answer to our own write."""

import asyncio
from collections.abc import Callable, Iterable

from darkroom_operator.core.training_job.observe import is_managed_here
from darkroom_operator.core.trimming import trimmed
from darkroom_operator.core.types import Body
from darkroom_operator.shell.cache import Key


class Store:
    """The newest body of each object that is this operator's."""

    def __init__(self, on_change: Callable[[Key], None]) -> None:
        self._bodies: dict[Key, Body] = {}
        self._on_change = on_change
        self.synced = asyncio.Event()

    def get(self, key: Key) -> Body | None:
        """The body, or None if there is no such object."""
        return self._bodies.get(key)

    def bodies(self) -> list[Body]:
        """Every object."""
        return list(self._bodies.values())

    def put(self, body: Body) -> None:
        """Take in a body unless a newer one is known. Another controller's job is as good as none."""
        body, key = trimmed(body), key_of(body)
        known = self._bodies.get(key)
        if known is not None and _version(known) >= _version(body):
            return
        if is_managed_here(body):
            self._bodies[key] = body
        elif self._bodies.pop(key, None) is None:
            return
        self._on_change(key)

    def remove(self, key: Key, uid: str) -> None:
        """That very object is gone; a namesake stays."""
        known = self._bodies.get(key)
        if known is not None and known["metadata"]["uid"] == uid:
            del self._bodies[key]
            self._on_change(key)

    def replace(self, bodies: Iterable[Body], version: str, namespace: str | None) -> None:
        """A list: what it lacks is gone, unless it is newer than the list."""
        listed = {body["metadata"]["uid"] for body in bodies}
        for key, body in list(self._bodies.items()):
            in_scope = namespace is None or key[0] == namespace
            if in_scope and body["metadata"]["uid"] not in listed and _version(body) <= int(version):
                self.remove(key, body["metadata"]["uid"])
        for body in bodies:
            self.put(body)

    def touch_all(self) -> None:
        """Have every object looked at again."""
        for key in list(self._bodies):
            self._on_change(key)


def key_of(body: Body) -> Key:
    """Namespace and name."""
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _version(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])
