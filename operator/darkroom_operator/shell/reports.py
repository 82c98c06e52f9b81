"""Live reports of training pods: an HTTPS endpoint that believes nothing that it has not checked.

What a pod may do here is to say how far its own job is, and to hear whether it should go on. It is checked in this order:
this operator is ready, the size, the token, the pod, the pace, the content. Every refusal says why, for whoever writes a trainer.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime

from aiohttp import web
from aiohttp.http import HttpProcessingError

from darkroom_api import names
from darkroom_api.report import MAX_REPORT_BYTES, LiveReport, Reply
from darkroom_operator.core.training_job import budget, live
from darkroom_operator.core.training_job.objects import report_path
from darkroom_operator.core.training_job.observe import attempt_of
from darkroom_operator.core.types import Body, Facts, Live
from darkroom_operator.shell.cache import Key
from darkroom_operator.shell.certificates import Certificates
from darkroom_operator.shell.client import ApiError
from darkroom_operator.shell.inbox import Inbox
from darkroom_operator.shell.metrics import Metrics
from darkroom_operator.shell.profiles import Profiles
from darkroom_operator.shell.reconcile import Caches
from darkroom_operator.shell.store import Store
from darkroom_operator.shell.tokens import BadTokenError, Tokens

READ_SECONDS = 10.0
IDLE_SECONDS = 5.0
"""Of a connection that says nothing, or not all of a request's head."""
BURST, PER_SECOND = 10.0, 1.0
"""Reports of one pod: that many at once, and that many in the long run."""


_NOT_OURS = (HttpProcessingError, web.RequestPayloadError, ConnectionError)
"""What somebody's bytes, or his going away, raise in aiohttp's server."""


class Refused(Exception):  # noqa: N818 - reads as what happened
    """No to a report: the HTTP status, a word for the metric, a sentence for the sender."""

    def __init__(self, status: int, result: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.result, self.retry_after = status, result, retry_after


class Pace:
    """A bucket of tokens for each pod. Only pods that have proved who they are get one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def allows(self, uid: str) -> bool:
        """Take one."""
        now = self._clock()
        left, since = self._buckets.pop(uid, (BURST, now))
        left = min(BURST, left + (now - since) * PER_SECOND)
        allowed = left >= 1.0
        self._buckets[uid] = (left - allowed, now)
        self._forget(now)
        return allowed

    def _forget(self, now: float) -> None:
        """Those that have been silent long enough to be full again; the oldest come first, the one just served is last."""
        while now - self._buckets[oldest := next(iter(self._buckets))][1] > BURST / PER_SECOND:
            del self._buckets[oldest]


class Reports:
    """Takes reports in, and answers each with what the operator wants of its sender."""

    def __init__(
        self,
        inbox: Inbox,
        tokens: Tokens,
        caches: Caches,
        store: Store,
        profiles: Profiles,
        metrics: Metrics,
        *,
        enqueue: Callable[[Key], None],
        ready: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._inbox, self._tokens, self._caches, self._store = inbox, tokens, caches, store
        self._profiles, self._metrics, self._enqueue = profiles, metrics, enqueue
        self._ready, self._now = ready, now
        self._pace = Pace()

    async def run(self, certificates: Certificates, port: int) -> None:
        """Serve for ever, from when there is a certificate."""
        await certificates.loaded.wait()
        app = web.Application(client_max_size=MAX_REPORT_BYTES)
        app.add_routes([web.post(report_path("{uid}", "{attempt}"), self.receive)])
        logging.getLogger("aiohttp.server").addFilter(_is_ours)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, None, port, ssl_context=certificates.context).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def receive(self, request: web.Request) -> web.Response:
        """One report."""
        try:
            reply, result = await self._receive(request)
        except Refused as no:
            self._metrics.reports.labels(no.result).inc()
            headers = {"Retry-After": str(no.retry_after)} if no.retry_after is not None else None
            return web.json_response({"error": str(no)}, status=no.status, headers=headers)
        self._metrics.reports.labels(result).inc()
        return web.json_response(reply.to_wire())

    async def _receive(self, request: web.Request) -> tuple[Reply, str]:
        if not self._ready():
            raise Refused(503, "not_ready", "this replica is not ready; ask again, another may be", retry_after=1)
        text = await _read(request)
        pod = await self._sender(request)
        if not self._pace.allows(pod["metadata"]["uid"]):
            raise Refused(429, "too_often", f"more than {PER_SECOND:.0f} report a second", retry_after=5)
        try:
            report = LiveReport.decode(text)
        except ValueError as error:
            raise Refused(400, "invalid", str(error)[:1024]) from error
        return self._take(pod, report)

    async def _sender(self, request: web.Request) -> Body:
        """The pod that the token was issued for, if it may report for the attempt in the address."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or not token:
            raise Refused(401, "unauthorized", f"no bearer token; it is in the file {names.ENV_REPORT_TOKEN_FILE}")
        try:
            holder = await self._tokens.holder(token.strip())
        except BadTokenError as error:
            raise Refused(401, "unauthorized", str(error)) from error
        except ApiError as error:
            message = f"the cluster's keys cannot be read: {error}"
            raise Refused(503, "no_keys", message, retry_after=5) from error
        pod = self._caches.pod(holder.pod.uid)
        if pod is None or (holder.namespace, holder.pod.name) != (
            pod["metadata"]["namespace"],
            pod["metadata"]["name"],
        ):
            raise Refused(403, "unknown_pod", "the token's pod is none of a TrainingJob's, or gone")
        labels = pod["metadata"]["labels"]
        reported = (request.match_info["uid"], request.match_info["attempt"])
        if attempt_of(pod) is None or (labels.get(names.LABEL_JOB_UID), labels[names.LABEL_ATTEMPT]) != reported:
            raise Refused(403, "other_job", "the token's pod belongs to another TrainingJob or attempt")
        return pod

    def _take(self, pod: Body, report: LiveReport) -> tuple[Reply, str]:
        meta = pod["metadata"]
        key, labels = (meta["namespace"], meta["labels"][names.LABEL_JOB]), meta["labels"]
        body = self._store.get(key)
        if body is None or body["metadata"]["uid"] != labels[names.LABEL_JOB_UID]:
            raise Refused(403, "unknown_job", "there is no such TrainingJob any more")
        attempt = int(labels[names.LABEL_ATTEMPT])  # _sender has looked at it
        news = self._inbox.put(key, Live(labels[names.LABEL_JOB_UID], attempt, self._now(), report))
        if news:
            self._enqueue(key)
        facts = Facts(body, self._caches.of(key), self._now(), self._profiles.current)
        left = budget.seconds_left_of(facts, attempt)
        return live.reply(body, attempt, accepted=news, seconds_left=left), "accepted" if news else "stale"


async def _read(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Refused(413, "too_large", f"more than {MAX_REPORT_BYTES} bytes") from error
    except TimeoutError as error:
        raise Refused(408, "too_slow", f"the body took more than {READ_SECONDS:.0f} s") from error
    except _NOT_OURS as error:
        raise Refused(400, "invalid", f"the body cannot be read: {error}"[:1024]) from error


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a line of aiohttp's server is about an error here: that somebody sends what is no HTTP is not."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, _NOT_OURS)
