"""Many requests at once, and when things happened: what the benchmarks of scale put on an API server and read off it."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from tests.kube import Kube, Refused

THREADS = 8


class Connections:
    """A connection per thread, kept open: a handshake costs more than a request."""

    def __init__(self, kube: Kube) -> None:
        self._kube, self._own = kube, threading.local()

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> None:
        """One request; Refused carries the API server's message. The answer is not looked at."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            host = self._kube.server.removeprefix("https://")
            connection = self._own.connection = http.client.HTTPSConnection(
                host, context=self._kube.context, timeout=60
            )
        connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise Refused(answer.status, text.decode()[:500])


def at_once(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Call `work` with each, on a few threads; the first error is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()


class Recorder:
    """When each object of a namespace was first seen, and first seen in each `status.state`, on the clock of time.monotonic."""

    def __init__(self, kube: Kube, kind: str, namespace: str) -> None:
        self.seen: dict[str, float] = {}
        self.states: dict[str, dict[str, float]] = {}
        host = kube.server.removeprefix("https://")
        self._connection = http.client.HTTPSConnection(host, context=kube.context, timeout=3600)
        self._connection.request("GET", kube.path(kind, namespace) + "?watch=true")
        self._answer = self._connection.getresponse()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.sock and self._connection.sock.close()

    def in_state(self, state: str) -> dict[str, float]:
        """When each object was first seen in it."""
        return {name: times[state] for name, times in list(self.states.items()) if state in times}

    def _read(self) -> None:
        try:
            for line in self._answer:
                now, body = time.monotonic(), json.loads(line)["object"]
                name, state = body["metadata"]["name"], body.get("status", {}).get("state", "")
                self.seen.setdefault(name, now)
                self.states.setdefault(name, {}).setdefault(state, now)
        except (OSError, ValueError):
            return  # closed by __exit__
