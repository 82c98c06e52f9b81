"""A proxy between a client and the real API server that does what bad networks and busy servers do.

Plain HTTP on loopback in, the admin's TLS out. A test puts a rule in; the rule looks at each request and names a fault,
or None to let it through.
"""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.kube import Kube


@dataclass(frozen=True)
class Request:
    """One request as it reached the proxy."""

    at: float
    method: str
    path: str
    """With its query."""
    body: bytes = b""

    @property
    def is_watch(self) -> bool:
        return "watch=true" in self.path

    def on(self, plural: str) -> bool:
        return f"/{plural}" in self.path.split("?")[0]


@dataclass(frozen=True)
class Answer:
    """The proxy answers by itself, as an API server that is busy, broken or strict."""

    code: int
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    """Instead of a Status object: HTML of a load balancer, say."""


@dataclass(frozen=True)
class CloseAtOnce:
    """200, and the end of the stream right after the headers."""


@dataclass(frozen=True)
class Gone:
    """200, and the watch event that says that the resourceVersion is too old."""


@dataclass(frozen=True)
class HalfALine:
    """200, a part of an event, and the connection breaks."""


@dataclass(frozen=True)
class Silence:
    """200, and nothing more: a half-open connection."""


@dataclass(frozen=True)
class Hangup:
    """The connection breaks before any answer."""


@dataclass(frozen=True)
class LostAnswer:
    """The API server does it, but its answer gets lost."""


@dataclass(frozen=True)
class Slow:
    """All of it comes, each part after a pause."""

    seconds: float


Fault = Answer | CloseAtOnce | Gone | HalfALine | Silence | Hangup | LostAnswer | Slow
Rule = Callable[[Request], Fault | None]


class FaultyProxy:
    """Requests go through unless `rule` names a fault."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self.rule: Rule = lambda _: None
        self.requests: list[Request] = []
        self._streams: set[socket.socket] = set()
        self._open = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def kubeconfig(self, file: Path) -> Path:
        """A kubeconfig that leads through the proxy."""
        cluster = {"name": "proxy", "cluster": {"server": self.url}}
        context = {"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}
        user = {"name": "proxy", "user": {"token": "unused"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "proxy"}
        file.write_text(yaml.safe_dump(config | {"clusters": [cluster], "contexts": [context], "users": [user]}))
        return file

    def since(self, at: float) -> list[Request]:
        """Requests that came after `at`."""
        return [request for request in self.requests if request.at >= at]

    def break_streams(self) -> None:
        """Cut every connection that is open now."""
        for stream in list(self._streams):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._open = False
        self._server.shutdown()
        self._server.server_close()
        self.break_streams()

    def idle(self) -> None:
        """Say nothing until the client or the test goes away."""
        while self._open:
            time.sleep(0.05)


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            proxy._streams.add(self.connection)

        def finish(self) -> None:
            proxy._streams.discard(self.connection)
            with contextlib.suppress(OSError):
                super().finish()

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True  # the client went away, or the test cut the line

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(time.monotonic(), self.command, self.path, body)
            proxy.requests.append(request)
            match proxy.rule(request):
                case None:
                    self._forward(body)
                case LostAnswer():
                    self._forward(body, lose=True)
                case Slow(seconds):
                    self._forward(body, pause=seconds)
                case Answer() as answer:
                    self._answer(answer)
                case fault:
                    self._break(fault)

        def _answer(self, answer: Answer) -> None:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": answer.code}
            status |= {"reason": answer.reason, "message": f"the proxy says {answer.code}"}
            text = (json.dumps(status) if answer.text is None else answer.text).encode()
            self.send_response(answer.code)
            self.send_header("Content-Type", "application/json" if answer.text is None else "text/html")
            self.send_header("Content-Length", str(len(text)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def _break(self, fault: Fault) -> None:
            self.close_connection = True
            if isinstance(fault, Hangup):
                return
            self._begin_stream()
            if isinstance(fault, CloseAtOnce):
                self.wfile.write(b"0\r\n\r\n")
            elif isinstance(fault, Gone):
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                self._chunk(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
                self.wfile.write(b"0\r\n\r\n")
            elif isinstance(fault, HalfALine):
                self._chunk(b'{"type":"ADDED","object":{"metadata":{"na')
            else:
                proxy.idle()

        def _forward(self, body: bytes, *, lose: bool = False, pause: float = 0.0) -> None:
            host = proxy.kube.server.split("//")[1]
            upstream = http.client.HTTPSConnection(host, context=proxy.kube.context, timeout=400)
            try:
                keep = ("content-type", "accept", "user-agent")
                headers = {k: v for k, v in self.headers.items() if k.lower() in keep}
                upstream.request(self.command, self.path, body or None, headers)
                answer = upstream.getresponse()
                if lose:
                    answer.read()
                    self.close_connection = True
                    return
                self._relay(answer, pause)
            except http.client.HTTPException:
                self.close_connection = True
            finally:
                upstream.close()

        def _relay(self, answer: http.client.HTTPResponse, pause: float) -> None:
            self._begin_stream(answer.status, answer.headers.get("Content-Type", "application/json"))
            while chunk := answer.read1(65536):
                time.sleep(pause)
                self._chunk(chunk)
            self.wfile.write(b"0\r\n\r\n")

        def _begin_stream(self, code: int = 200, content: str = "application/json") -> None:
            self.send_response(code)
            self.send_header("Content-Type", content)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Silent: the tests look at `requests`."""

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - names of the base class

    return Handler
