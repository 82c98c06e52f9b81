"""A reverse proxy between an operator and the API server that counts writes and can stop the world after one of them."""

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.kube import Kube

WRITES = ("POST", "PUT", "PATCH", "DELETE")


class WriteCounter:
    """Plain HTTP on loopback in, the admin's TLS out. `after_write(n)` is called when write n is done, before its answer."""

    def __init__(self, kube: Kube, after_write: Callable[[int], None] = lambda _: None) -> None:
        self.kube, self.after_write = kube, after_write
        self.writes: list[str] = []
        self.reads: list[str] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kubeconfig(self, file: Path) -> Path:
        """A kubeconfig that leads through the proxy."""
        cluster = {"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}
        context = {"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}
        user = {"name": "proxy", "user": {"token": "unused"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "proxy"}
        file.write_text(yaml.safe_dump(config | {"clusters": [cluster], "contexts": [context], "users": [user]}))
        return file

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _count(self, method: str, path: str) -> int:
        """Number of this write, or 0: reads and Events (best effort by nature) do not count."""
        with self._lock:
            if method not in WRITES or "/events" in path:
                self.reads.append(f"{method} {path}")
                return 0
            self.writes.append(f"{method} {path.split('?', maxsplit=1)[0]}")
            return len(self.writes)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        counter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                number = counter._count(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                host = counter.kube.server.split("//")[1]
                upstream = http.client.HTTPSConnection(host, context=counter.kube.context, timeout=400)
                try:
                    keep = ("content-type", "accept", "user-agent")
                    headers = {k: v for k, v in self.headers.items() if k.lower() in keep}
                    upstream.request(self.command, self.path, body or None, headers)
                    answer = upstream.getresponse()
                    if number:
                        counter.after_write(number)
                    self._answer(answer)
                except (OSError, http.client.HTTPException):
                    self.close_connection = True  # either side went away, as a killed operator does
                finally:
                    upstream.close()

            def _answer(self, answer: http.client.HTTPResponse) -> None:
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while chunk := answer.read1(65536):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_: Any) -> None:
                """Silent: the tests look at the counts."""

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815 - names of the base class

        return Handler
