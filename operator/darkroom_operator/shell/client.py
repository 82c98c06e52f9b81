"""Requests to the API server: dicts in, dicts out, with time-outs and bounded retries."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from darkroom_api import names
from darkroom_operator.core.types import Body
from darkroom_operator.shell.clock import Clock
from darkroom_operator.shell.endpoint import Endpoint

TIMEOUT = 15.0
TRIES = 4
_AS_MANAGER = {"fieldManager": names.FIELD_MANAGER}
Object = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A collection of the API."""

    root: str
    plural: str
    kind: str

    def path(self, namespace: str | None = None, name: str = "", *, subresource: str = "") -> str:
        """URL path; without a namespace, of the collection in all of them."""
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{self.root}{scope}/{self.plural}{tail}"


TRAINING_JOBS = Resource(f"/apis/{names.API_VERSION}", "trainingjobs", "TrainingJob")
TUNING_SWEEPS = Resource(f"/apis/{names.API_VERSION}", "tuningsweeps", "TuningSweep")
JOBS = Resource("/apis/batch/v1", "jobs", "Job")
PODS = Resource("/api/v1", "pods", "Pod")
SERVICES = Resource("/api/v1", "services", "Service")
SECRETS = Resource("/api/v1", "secrets", "Secret")
ISSUER = Resource("", "serviceaccountissuer", "")
"""Not a collection: documents about the tokens of service accounts, each at a path of its own."""
DISCOVERY = Resource("", "apis", "")
"""Not a collection either: what an API version has, at its path."""
CONFIG_MAPS = Resource("/api/v1", "configmaps", "ConfigMap")
NETWORK_POLICIES = Resource("/apis/networking.k8s.io/v1", "networkpolicies", "NetworkPolicy")
EVENTS = Resource("/apis/events.k8s.io/v1", "events", "Event")
LEASES = Resource("/apis/coordination.k8s.io/v1", "leases", "Lease")
WORKLOADS = Resource("/apis/kueue.x-k8s.io/v1beta2", "workloads", "Workload")
BY_KIND = {resource.kind: resource for resource in (TRAINING_JOBS, JOBS, PODS, SERVICES, CONFIG_MAPS, NETWORK_POLICIES)}


def resource_of(body: Body) -> Resource:
    """The collection that an object of ours belongs to; PodGroups are in the API of their scheduler."""
    if body["kind"] == "PodGroup":
        return Resource(f"/apis/{body['apiVersion']}", "podgroups", "PodGroup")
    return BY_KIND[body["kind"]]


class ApiError(Exception):
    """The API server's no; `code` 0: it could not be reached."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.code in (0, 429) or self.code >= 500

    @property
    def final(self) -> bool:
        """Whether the same request will be refused again, until somebody changes something. 401 is not: tokens rotate."""
        return self.code in (400, 403, 404, 405, 413, 422)


class NotLeading(ApiError):  # noqa: N818 - reads as what happened
    """A write that was not sent, because another process may lead by now."""

    def __init__(self) -> None:
        super().__init__(0, "NotLeading", "the lease is not ours; nothing was written")

    @property
    def passing(self) -> bool:
        """Trying again is for whoever leads."""
        return False


OnRequest = Callable[[str, str, int], None]
"""Told of every answer: verb, resource, code."""


class Client:
    """Two sessions to one API server: watches hold their connections for good, and must not use up those of requests.

    `may_write` is asked about every write, last of all when it has its connection; NotLeading if it says no. `clock` is told the
    time of every answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_request: OnRequest,
        may_write: Callable[[], bool] = lambda: True,
        clock: Clock | None = None,
    ) -> None:
        self._server = endpoint.server.rstrip("/")
        self.clock = clock or Clock()
        self._session = endpoint.session(trace_configs=[_fence(may_write)])
        self._watches = endpoint.session(connections=0)
        self._on_request = on_request

    async def close(self) -> None:
        """Let go of the connections."""
        await self._session.close()
        await self._watches.close()

    async def list(self, resource: Resource, namespace: str | None, selector: str = "") -> tuple[list[Object], str]:
        """Every object, and the resourceVersion of the list; in pages of 500."""
        query = {"limit": "500"} | ({"labelSelector": selector} if selector else {})
        items: list[Object] = []
        while True:
            page = await self._request("GET", resource, resource.path(namespace), query=query)
            items += page.get("items") or []
            if not (more := page["metadata"].get("continue")):
                return items, page["metadata"]["resourceVersion"]
            query["continue"] = more

    async def watch(
        self, resource: Resource, namespace: str | None, selector: str, *, version: str, seconds: float, silence: float
    ) -> AsyncIterator[Object]:
        """Events and bookmarks from `version` on, until the server closes; TimeoutError after `silence` seconds of nothing."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        if selector:
            query["labelSelector"] = selector
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=silence)
        url = self._server + resource.path(namespace)
        async with self._watches.get(url, params=query, timeout=timeout) as response:
            self._on_request("watch", resource.plural, response.status)
            if response.status != 200:
                raise await _error(response)
            async for line in _lines(response.content):
                yield json.loads(line)

    async def create(self, resource: Resource, body: Body, *, tries: int = TRIES) -> Object:
        """POST; ApiError 409 if the name is taken."""
        path = resource.path(body["metadata"]["namespace"])
        return await self._request("POST", resource, path, body=body, query=_AS_MANAGER, tries=tries)

    async def get(self, resource: Resource, namespace: str, name: str, *, tries: int = TRIES) -> Object:
        """One object."""
        return await self._request("GET", resource, resource.path(namespace, name), tries=tries)

    async def replace(self, resource: Resource, body: Body, *, tries: int = TRIES) -> Object:
        """PUT; ApiError 409 if the object is not the one whose resourceVersion `body` has."""
        path = resource.path(body["metadata"]["namespace"], body["metadata"]["name"])
        return await self._request("PUT", resource, path, body=body, query=_AS_MANAGER, tries=tries)

    async def document(self, path: str, resource: Resource = ISSUER) -> Object:
        """What the API server publishes about itself; tried once, for somebody waits for the answer."""
        return await self._request("GET", resource, path, tries=1)

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Body, *, tries: int = TRIES) -> Object:
        """JSON merge patch; ApiError 409 if `patch` names a resourceVersion that is not the newest."""
        path, content = resource.path(namespace, name), "application/merge-patch+json"
        return await self._request("PATCH", resource, path, body=patch, content=content, query=_AS_MANAGER, tries=tries)

    async def apply(self, resource: Resource, body: Body) -> Object:
        """Server-side apply as our field manager, taking over fields that others set."""
        meta = body["metadata"]
        return await self._request(
            "PATCH",
            resource,
            resource.path(meta["namespace"], meta["name"]),
            body=body,
            content="application/apply-patch+yaml",
            query={**_AS_MANAGER, "force": "true"},
        )

    async def replace_status(self, resource: Resource, body: Body, status: Body) -> Object:
        """Store a whole status, if the object is still the one that it was computed from; ApiError 409 otherwise."""
        meta = body["metadata"]
        kept = {key: meta[key] for key in ("name", "namespace", "resourceVersion", "uid")}
        whole = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": kept, "status": status}
        patch = _cleared(body.get("status") or {}, status)
        return await self._request(
            "PATCH",
            resource,
            resource.path(meta["namespace"], meta["name"], subresource="status"),
            body=whole | {"status": patch},
            content="application/merge-patch+json",
            query=_AS_MANAGER,
        )

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, propagation: str) -> None:
        """DELETE of that very object; one that is gone already is fine."""
        options = {"propagationPolicy": propagation, "preconditions": {"uid": uid}}
        try:
            await self._request("DELETE", resource, resource.path(namespace, name), body=options)
        except ApiError as error:
            if error.code not in (404, 409):  # 409: the name has an object of another UID by now
                raise

    async def _request(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        body: Body | None = None,
        content: str = "application/json",
        query: Mapping[str, str] | None = None,
        tries: int = TRIES,
    ) -> Object:
        """One request, tried again while the answer is a passing one. Every write here may be repeated without harm."""
        for attempt in range(1, tries + 1):
            try:
                return await self._once(verb, resource, path, body=body, content=content, query=query)
            except ApiError as error:
                if not error.passing or attempt == tries:
                    raise
                pause = error.retry_after if error.retry_after is not None else 0.2 * 2.0**attempt
                await asyncio.sleep(min(pause, 10.0) * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries
        raise AssertionError("the last try returns or raises")

    async def _once(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        body: Body | None,
        content: str,
        query: Mapping[str, str] | None,
    ) -> Object:
        sent = time.monotonic()
        try:
            async with self._session.request(
                verb,
                self._server + path,
                data=None if body is None else json.dumps(body),
                params=query,
                headers={"Content-Type": content, "Accept": "application/json, application/jwk-set+json"},
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            ) as response:
                self._on_request(verb.lower(), resource.plural, response.status)
                self._set_clock(response, sent)
                if response.status >= 400:
                    raise await _error(response)
                answer: Object = await response.json(content_type=None)  # a key set has a type of its own
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            self._on_request(verb.lower(), resource.plural, 0)
            raise ApiError(0, "Unreachable", f"{type(error).__name__}: {error}") from error

    def _set_clock(self, response: aiohttp.ClientResponse, sent: float) -> None:
        """By the API server's own answers: a load balancer without one behind it says 502 to 504."""
        if response.status < 500:
            self.clock.heard(response.headers.get("Date", ""), sent, time.monotonic())


def _fence(may_write: Callable[[], bool]) -> aiohttp.TraceConfig:
    """Asks right before a request is written to its connection: getting one takes time, and a process may be paused meanwhile."""
    config = aiohttp.TraceConfig()

    async def check(_session: Any, _context: Any, params: aiohttp.TraceRequestHeadersSentParams) -> None:
        if params.method != "GET" and not may_write():
            raise NotLeading

    config.on_request_headers_sent.append(check)  # called before they are, in spite of its name; a test holds that
    return config


def _cleared(old: Body, new: Body) -> Object:
    """The merge patch that turns `old` into `new`: keys that vanish must be null, at every level."""
    patch: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        patch[key] = _cleared(before, value) if both and before is not None else value
    return patch


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    text = (await response.text())[:2000]
    try:
        status = json.loads(text)
        reason, message = status.get("reason", ""), status.get("message", text)
    except (ValueError, AttributeError):
        reason, message = response.reason or "", text
    after = response.headers.get("Retry-After", "")
    return ApiError(response.status, reason, message, retry_after=float(after) if after.isdigit() else None)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; the stream's own readline has a limit."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
