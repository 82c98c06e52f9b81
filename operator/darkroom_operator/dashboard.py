"""`python -m darkroom_operator.dashboard`: optuna-dashboard over the TuningSweeps of a cluster, to look at and nothing else.

There is no database: studies are made of the objects, in memory, whenever these have changed. It listens on the loopback
interface of its pod alone, so the way to it is `kubectl port-forward`, behind the cluster's own authentication and authorization.
Every request that would change something is refused, and the pod's service account may only list TuningSweeps and get
ConfigMaps, where long searches keep their oldest trials.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import InMemoryStorage

from darkroom_operator.core.tuning_sweep.ledger import Page
from darkroom_operator.core.tuning_sweep.study import fill, look
from darkroom_operator.core.types import Body
from darkroom_operator.shell.client import TUNING_SWEEPS, ApiError, Client
from darkroom_operator.shell.endpoint import find_endpoint
from darkroom_operator.shell.store import key_of
from darkroom_operator.shell.sweeps import Pages

log = logging.getLogger(__name__)

PORT = 8081
REFRESH_SECONDS = 5.0
_LOOKING = ("GET", "HEAD", "OPTIONS")
_REFUSED = b'{"reason": "read-only: a sweep is changed with kubectl"}'
Start = Callable[..., Any]
App = Callable[[dict[str, Any], Start], Iterable[bytes]]


class Dashboard:
    """A WSGI application over the newest sweeps that it was shown."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._shown: list[tuple[str, str, int]] | None = None

    def show(self, sweeps: Iterable[tuple[Body, Sequence[Page]]]) -> None:
        """What is there now, each with the pages of its ledger; cheap if nothing has changed."""
        found = sorted(sweeps, key=lambda pair: (pair[0]["metadata"]["creationTimestamp"], pair[0]["metadata"]["uid"]))
        versions = [(b["metadata"]["uid"], b["metadata"]["resourceVersion"], len(pages)) for b, pages in found]
        if versions == self._shown:
            return
        from optuna_dashboard import wsgi

        storage, now = InMemoryStorage(), datetime.now(UTC)
        fill(storage, [seen for body, pages in found if (seen := look(body, now, pages))])
        self._app, self._shown = wsgi(storage), versions

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in _LOOKING:
            return _answer(start_response, "405 Method Not Allowed", _REFUSED)
        if self._app is None:
            return _answer(start_response, "503 Service Unavailable", b'{"reason": "the sweeps were not read yet"}')
        return self._app(environ, start_response)


def _answer(start_response: Start, status: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has there
        log.debug(format, *args)


async def follow(dashboard: Dashboard, client: Client, namespaces: Sequence[str | None]) -> None:
    """Read the sweeps every few seconds, for ever; what cannot be read now is read later."""
    pages = Pages(client)
    while True:
        try:
            lists = [await client.list(TUNING_SWEEPS, namespace) for namespace in namespaces]
            bodies = {key_of(body): body for items, _ in lists for body in items}
            pages.keep(bodies.keys())
            dashboard.show([(body, (await pages.of(key, body))[0]) for key, body in bodies.items()])
        except (ApiError, OSError) as error:
            log.warning("sweeps cannot be read: %s", error)
        await asyncio.sleep(REFRESH_SECONDS)


async def _main() -> None:
    dashboard = Dashboard()
    server = make_server(
        "127.0.0.1", int(os.environ.get("DARKROOM_DASHBOARD_PORT", str(PORT))), dashboard, _Server, _Quiet
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log.info("listening on http://127.0.0.1:%d", server.server_port)
    client = Client(find_endpoint(), lambda *_: None)
    namespaces = [name for name in os.environ.get("DARKROOM_NAMESPACES", "").split(",") if name]
    try:
        await follow(dashboard, client, namespaces or [None])
    finally:
        await client.close()


def main() -> None:
    """The program."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    asyncio.run(_main())


if __name__ == "__main__":
    main()
