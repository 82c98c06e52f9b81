"""The little of the Kubernetes API that starting a cluster needs: quicker than a kubectl for every poll."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from localcluster.errors import ClusterError
from localcluster.pki import Authority

Object = dict[str, Any]


class Api:
    """Calls as the administrator; one connection a call, for a server that restarts must not matter."""

    def __init__(self, host: str, port: int, authority: Authority) -> None:
        self._address = (host, port)
        self._authority = authority

    def call(self, method: str, path: str, body: Object | None = None) -> tuple[int, Any]:
        """The status and the decoded answer; OSError when nobody answers."""
        context = ssl.create_default_context(cafile=str(self._authority.certificate))
        context.load_cert_chain(*self._authority.pair("admin"))
        connection = http.client.HTTPSConnection(*self._address, timeout=10, context=context)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": kind})
            response = connection.getresponse()
            payload = response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(payload) if is_json else payload.decode()

    def get(self, path: str) -> Object | None:
        """The object, or None when it does not exist or the server is not there yet."""
        try:
            status, answer = self.call("GET", path)
        except OSError:
            return None
        return answer if status == http.client.OK and isinstance(answer, dict) else None

    def ready(self) -> bool:
        try:
            return self.call("GET", "/readyz")[0] == http.client.OK
        except OSError:
            return False

    def create(self, path: str, body: Object) -> None:
        """Create, or leave what is there."""
        status, answer = self.call("POST", path, body)
        if status not in {http.client.OK, http.client.CREATED, http.client.CONFLICT}:
            detail = answer.get("message") if isinstance(answer, dict) else answer
            raise ClusterError(f"the API server refused to create {body['kind']} at {path}: {detail}")


def write_kubeconfig(file: Path, server: str, authority: Authority, client: str) -> None:
    """A kubeconfig that can be copied away, for it carries its certificates (JSON is YAML)."""
    certificate, key = authority.pair(client)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "localcluster",
        "contexts": [{"name": "localcluster", "context": {"cluster": "localcluster", "user": client}}],
        "clusters": [
            {
                "name": "localcluster",
                "cluster": {"server": server, "certificate-authority-data": _embed(authority.certificate)},
            }
        ],
        "users": [
            {"name": client, "user": {"client-certificate-data": _embed(certificate), "client-key-data": _embed(key)}}
        ],
    }
    # Readers must never see half a file: is_up() in another process goes by its existence.
    staged = file.with_suffix(".new")
    staged.touch(mode=0o600)
    staged.write_text(json.dumps(config, indent=2) + "\n")
    staged.rename(file)


def _embed(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
