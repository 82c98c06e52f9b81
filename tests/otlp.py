"""A collector of OpenTelemetry traces for tests: OTLP over HTTP, decoded by the official protobuf."""

from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.served import Served, SilentHandler


class Span(NamedTuple):
    """A span as it came in: ids in hexadecimal, seconds since 1970."""

    trace: str
    id: str
    parent: str
    name: str
    start: float
    end: float
    attributes: dict[str, Any]
    error: str | None
    service: str

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Collector(Served):
    """Takes every request, or refuses every one of them with `refuse` as its status."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.refuse: int | None = None
        self.refused = 0
        collector = self

        class Handler(SilentHandler):
            def do_POST(self) -> None:  # noqa: N802 - http.server calls it so
                body = self.body()
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                if collector.refuse:
                    collector.refused += 1
                else:
                    collector.spans += decoded(body)
                self.answer(collector.refuse or 200, ExportTraceServiceResponse().SerializeToString())

        super().__init__(Handler)
        self.endpoint = f"http://127.0.0.1:{self.port}/v1/traces"

    def trace(self, trace_id: str) -> list[Span]:
        """All spans of one trace that came, in their order."""
        return [span for span in self.spans if span.trace == trace_id]


def decoded(body: bytes) -> list[Span]:
    """Spans of a request."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            name=span.name,
            start=span.start_time_unix_nano / 1e9,
            end=span.end_time_unix_nano / 1e9,
            attributes=values(span.attributes),
            error=span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else None,
            service=values(resource.resource.attributes)["service.name"],
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
