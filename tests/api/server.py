"""TrainingJobs and TuningSweeps sent to an API server over one connection."""

import contextlib
import http.client
import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.kube import Kube

NAMESPACE = "/apis/darkroom.dev/v1alpha1/namespaces/default"
JOBS, SWEEPS = f"{NAMESPACE}/trainingjobs", f"{NAMESPACE}/tuningsweeps"
COLLECTIONS = {"TrainingJob": JOBS, "TuningSweep": SWEEPS}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@dataclass(frozen=True)
class Answer:
    """What the API server said: the object, or a Status."""

    code: int
    body: dict[str, Any]
    warnings: list[str]

    @property
    def accepted(self) -> bool:
        return self.code < 300

    @property
    def complaints(self) -> list[str]:
        """One line per cause, without the value that was given: it may hold any word."""
        causes = self.body.get("details", {}).get("causes")
        if not causes:
            return [self.body.get("message", "")]
        return [f"{cause['field']}: {_without_value(cause['message'], cause['field'])}" for cause in causes]


def _without_value(message: str, field: str) -> str:
    """The part of `Invalid value: "...": spec.x in body should ...` that is not the value."""
    if not message.startswith(("Invalid value: ", "Unsupported value: ", "Duplicate value: ")):
        return message
    at = message.find(f": {field} in body")
    return message[at:] if at >= 0 else message


def _path(body: dict[str, Any]) -> str:
    return f"{COLLECTIONS[body['kind']]}/{body['metadata']['name']}"


class Server:
    """The API server over one connection that stays open: a thousand requests in a few seconds."""

    def __init__(self, kube: Kube) -> None:
        address = urllib.parse.urlsplit(kube.server)
        self._connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=kube.context)

    def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Answer:
        self._connection.request(method, path, json.dumps(body).encode(), {"Content-Type": kind})
        response = self._connection.getresponse()
        text = response.read()
        is_json = response.headers.get_content_type() == "application/json"
        content = json.loads(text) if is_json else {"message": text.decode()}
        return Answer(response.status, content, response.headers.get_all("Warning", []))

    def create(self, body: dict[str, Any], *, validation: str = "Strict") -> Answer:
        """Try to create an object, with the field validation that kubectl asks for."""
        return self.call("POST", f"{COLLECTIONS[body['kind']]}?fieldValidation={validation}&dryRun=All", body)

    @contextlib.contextmanager
    def existing(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """An object that exists for a while; yields it with what a replacement must say of it."""
        created = self.call("POST", f"{COLLECTIONS[body['kind']]}?fieldValidation=Strict", body)
        assert created.accepted, created.body
        try:
            version = created.body["metadata"]["resourceVersion"]
            yield body | {"metadata": body["metadata"] | {"resourceVersion": version}}
        finally:
            self.call("DELETE", _path(body))

    def replace(self, body: dict[str, Any]) -> Answer:
        """Try to replace an object."""
        return self.call("PUT", f"{_path(body)}?fieldValidation=Strict&dryRun=All", body)

    def replace_status(self, body: dict[str, Any], *, dry: bool = True) -> Answer:
        """Replace the status of an object, or only try."""
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self.call("PUT", f"{_path(body)}/status{query}", body)

    def crd(self, name: str = "trainingjobs.darkroom.dev") -> dict[str, Any]:
        """A CustomResourceDefinition as the API server keeps it."""
        return self.call("GET", f"{CRDS}/{name}").body

    def close(self) -> None:
        self._connection.close()
