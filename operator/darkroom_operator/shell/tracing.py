"""Sends the traces of finished jobs to an OpenTelemetry collector, by OTLP over HTTP; reconciling never waits for it.

The job's status keeps the trace's id once the collector has taken it; what was not sent when the operator ends, the next one
sends.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from darkroom_operator.core.training_job.trace import Span, Trace, hexadecimal, is_due, trace_of
from darkroom_operator.core.types import Body
from darkroom_operator.shell.backoff import Backoff
from darkroom_operator.shell.cache import Key
from darkroom_operator.shell.metrics import Metrics, version_of
from darkroom_operator.shell.store import key_of

log = logging.getLogger(__name__)
WAITING, AT_ONCE = 1000, 100
"""Jobs whose traces wait to be sent, and jobs in one request. One more is offered again at its next look."""
TIMEOUT = 10.0


class Exporter(Protocol):
    """OpenTelemetry's, as far as it is used here."""

    def export(self, spans: Any) -> Any:
        """Send; the answer's name is SUCCESS or FAILURE."""

    def shutdown(self) -> Any:
        """Give up what is under way."""


class Tracing:
    """`on_sent` has a job looked at again, so that its status tells."""

    def __init__(self, exporter: Exporter, metrics: Metrics, on_sent: Callable[[Key], None]) -> None:
        self._exporter, self._metrics, self._on_sent = exporter, metrics, on_sent
        self._waiting: dict[str, tuple[Key, Trace]] = {}
        self._sent: OrderedDict[str, str] = OrderedDict()
        self._news = asyncio.Event()

    def trace_id(self, body: Body, now: datetime) -> str | None:
        """Of the trace of this job, if it was sent; if it is due, it will be."""
        uid = body["metadata"]["uid"]
        if "traceId" in (body.get("status") or {}):
            self._sent.pop(uid, None)
        elif uid not in self._sent and len(self._waiting) < WAITING and is_due(body, now):
            self._waiting[uid] = key_of(body), trace_of(body)
            self._news.set()
        return self._sent.get(uid)

    async def run(self) -> None:
        """Send for ever."""
        backoff = Backoff()
        try:
            while True:
                await self._news.wait()
                if not self._waiting:
                    self._news.clear()
                elif await self._send(list(self._waiting)[:AT_ONCE]):
                    backoff = Backoff()
                else:
                    await asyncio.sleep(backoff.after(0.0))
        finally:
            self._exporter.shutdown()

    async def _send(self, uids: list[str]) -> bool:
        spans = [span for uid in uids for span in _readable(self._waiting[uid][1])]
        answer = await asyncio.to_thread(self._exporter.export, spans)
        self._metrics.traces.labels(answer.name.lower()).inc(len(uids))
        if answer.name != "SUCCESS":
            log.warning("the traces of %d jobs could not be sent; they are tried again", len(uids))
            return False
        for uid in uids:
            key, trace = self._waiting.pop(uid)
            self._sent[uid] = hexadecimal(trace.trace_id)
            self._on_sent(key)
        while len(self._sent) > WAITING:  # of jobs that were deleted before their status could tell
            self._sent.popitem(last=False)
        return True


def otlp(endpoint: str) -> Exporter:
    """To a collector's /v1/traces; the standard variables OTEL_EXPORTER_OTLP_* say the rest, such as headers and certificates."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT)


def _readable(trace: Trace) -> list[Any]:
    """As the SDK's exporters take them. They are made by hand: the SDK would start a span now, and choose its id itself."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    resource = Resource({"service.name": "darkroom-operator", "service.version": version_of("darkroom")})

    def context(span_id: int) -> SpanContext:
        return SpanContext(trace.trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def readable(span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=context(span.span_id),
            parent=context(span.parent_id) if span.parent_id else None,
            resource=resource,
            attributes=span.attributes,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.OK),
            start_time=_nanoseconds(span.start),
            end_time=_nanoseconds(span.end),
        )

    return [readable(span) for span in trace.spans]


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) * 1000
