"""Both ends of live reports for tests of the other: a server that checks nothing and keeps all, and a pod that reports."""

import http.client
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from darkroom_api import names
from darkroom_operator.shell.certificates import make_authority, make_leaf
from tests.kube import Kube
from tests.served import Served, SilentHandler

PATH = "/v1/training-jobs/uid-of-flowers/attempts/1/reports"


@dataclass(frozen=True)
class Received:
    """A report as it came in."""

    path: str
    token: str
    body: dict[str, Any]
    at: float = field(default_factory=time.monotonic)


class ReportServer(Served):
    """HTTPS on the loopback; `answer` makes the reply of a report, as status and body."""

    authority = make_authority(datetime.now(UTC))

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], tuple[int, dict[str, Any]]] = lambda _: (200, {"action": "continue"})
        self.token = folder / "token"
        self.token.write_text("a-token")
        server, reports = self, threading.Lock()

        class Handler(SilentHandler):
            def do_POST(self) -> None:  # noqa: N802 - http.server calls it so
                body = json.loads(self.body())
                with reports:
                    one = Received(self.path, self.headers["Authorization"], body)
                    server.received.append(one)
                    status, reply = server.answer(one)
                self.answer(status, json.dumps(reply).encode())

        super().__init__(Handler, port=port)
        self._http.socket = self._context().wrap_socket(self._http.socket, server_side=True)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf = make_leaf(self.authority, "127.0.0.1", datetime.now(UTC))
        with tempfile.NamedTemporaryFile() as both:
            both.write(b"".join(leaf.pem))
            both.flush()
            context.load_cert_chain(both.name)
        return context

    @property
    def environ(self) -> dict[str, str]:
        """What the operator would put into a pod."""
        return environ(self.port, self.token)


def environ(port: int, token: Path) -> dict[str, str]:
    """The environment of a pod that reports to a port of this machine."""
    return {
        names.ENV_REPORT_URL: f"https://127.0.0.1:{port}{PATH}",
        names.ENV_REPORT_CA: ReportServer.authority.pem[0].decode(),
        names.ENV_REPORT_TOKEN_FILE: str(token),
    }


@dataclass
class Reporter:
    """A pod that exists and never runs: what it knows, and the tokens that kubelet would write."""

    kube: Kube
    body: dict[str, Any]

    @property
    def environ(self) -> dict[str, str]:
        (container,) = self.body["spec"]["containers"]
        return {variable["name"]: variable.get("value", "") for variable in container["env"]}

    def token(self, audience: str = names.REPORT_AUDIENCE, *, bound: bool = True) -> str:
        meta = self.body["metadata"]
        reference = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec = {"audiences": [audience], "expirationSeconds": 3600} | ({"boundObjectRef": reference} if bound else {})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = Kube.path("ServiceAccount", meta["namespace"], "default")
        return self.kube.request("POST", f"{path}/token", request)["status"]["token"]

    def post(
        self, report: Any, token: str | None = None, *, like: "Reporter | None" = None
    ) -> tuple[int, dict[str, Any]]:
        """Report with the environment of this pod, or of another one; status and answer."""
        there = (like or self).environ
        host, _, path = there[names.ENV_REPORT_URL].removeprefix("https://").partition("/")
        context = ssl.create_default_context(cadata=there[names.ENV_REPORT_CA])
        body = report if isinstance(report, bytes) else json.dumps(report).encode()
        given = self.token() if token is None else token
        headers = {"Authorization": f"Bearer {given}"} if given else {}
        with closing(http.client.HTTPSConnection(host, timeout=20, context=context)) as connection:
            connection.request("POST", f"/{path}", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def try_to_post(self, report: Any) -> tuple[int, dict[str, Any]]:
        """As `post`; 0 while nobody listens."""
        try:
            return self.post(report)
        except OSError as error:
            return 0, {"error": str(error)}
