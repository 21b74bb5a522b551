"""OpenTelemetry's side of `engine.tracing`: spans go to an OTLP collector over HTTP, in batches, from a thread of their own.

The one home of the library, loaded by `aigateway.tracing` and only where traces are asked for. All its `OTEL_*` variables are read
by it. It is not made the process's global provider: other libraries' spans are theirs to ask for. A collector that is slow or gone
costs its own spans: what does not fit into the queue (2,048 spans) is dropped, and nobody waits for it.
"""

import logging
import re
import threading
from collections.abc import Sequence

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import Tracer as SdkTracer

import engine.tracing
from engine.tracing import Attributes, Work

log = structlog.get_logger(__name__)

FLUSH_S = 2.0
"""How long the end of a process waits for what was not sent yet."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_INNER = re.compile(r"""^HTTPS?ConnectionPool.*: (?=Failed to |\[)|["']\)+$""")  # what urllib3 wraps its reason in
_SHOWN = 300
_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_NOISY = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class OtelTracer:
    """engine.tracing.Tracer. To be made behind every fork: the thread that sends starts with it."""

    def __init__(self, version: str) -> None:
        self._ids = _Ids()
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say stands above this.
        resource = Resource({"service.name": "aigateway", "service.version": version}).merge(_told_resource())
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._exporter = Reporting(OTLPSpanExporter())
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("aigateway", version)

    def start(self, name: str, kind: engine.tracing.SpanKind, parent: str | None, attributes: Attributes) -> "OtelSpan":
        """A span that begins now."""
        context = Context()
        trace_id, span_id, flags = _place(parent)
        if span_id:
            place = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
            context = set_span_in_context(NonRecordingSpan(place), context)
        else:
            self._ids.next_trace_id = trace_id
        span = self._tracer.start_span(name, context, _KINDS[kind], _given(attributes))
        self._ids.next_trace_id = 0
        return OtelSpan(self._tracer, span)

    def close(self) -> None:
        """Send what is there, within `FLUSH_S`. Blocks."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(FLUSH_S)
        self._exporter.shutdown()


class OtelSpan:
    """engine.tracing.Span."""

    def __init__(self, tracer: SdkTracer, span: SdkSpan) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def context(self) -> str:
        """As `traceparent`."""
        own = self._span.get_span_context()
        return f"00-{format_trace_id(own.trace_id)}-{format_span_id(own.span_id)}-{own.trace_flags:02x}"

    def add(self, work: Work) -> None:
        """A child that is over."""
        if not self._span.get_span_context().trace_flags.sampled:
            return
        child = self._tracer.start_span(
            work.name,
            set_span_in_context(self._span, Context()),
            _KINDS[work.kind],
            _given(work.attributes),
            start_time=work.began_us * 1000,
        )
        _tell_error(child, work.error)
        child.end(work.ended_us * 1000)

    def end(self, attributes: Attributes, *, error: str | None = None, name: str | None = None) -> None:
        """It is over."""
        if name is not None:
            self._span.update_name(name)
        self._span.set_attributes(_given(attributes))
        _tell_error(self._span, error)
        self._span.end()


class Reporting(SpanExporter):
    """An exporter that says when traces stop going out and when they go again, once each; the library's own words are kept back."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = self._ended = False
        self._heard = _Heard()
        for name in _NOISY:
            logger = logging.getLogger(name)
            logger.setLevel(logging.WARNING)
            logger.filters = [found for found in logger.filters if not isinstance(found, _Heard)] + [self._heard]

    @property
    def reason(self) -> str:
        """Why the last batch did not go out."""
        return self._heard.words

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called on the thread that sends."""
        self._heard.words = ""
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.warning("traces are not sent", action="trace", reason=self.reason)
        elif self._failing and not failed:
            log.info("traces are sent again", action="trace")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        """End it, and what it is trying just now."""
        if not self._ended:
            self._ended = True
            self._exporter.shutdown()


def try_to_send(limit_s: float) -> str | None:
    """Send an empty batch to the collector: None where it was taken, else why not. Blocks, about `limit_s` at most."""
    exporter = Reporting(OTLPSpanExporter(timeout=limit_s))
    try:
        taken = exporter.export(()) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()
    return None if taken else exporter.reason


class _Ids(RandomIdGenerator):
    """Random ids, but for a trace that was given its own."""

    def __init__(self) -> None:
        self.next_trace_id = 0

    def generate_trace_id(self) -> int:
        return self.next_trace_id or super().generate_trace_id()


class _Heard(logging.Filter):
    """Keeps the first thing that was said, and lets nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if not self.words:
            told = record.getMessage().removeprefix("Transient error ").partition(" encountered while")[0]
            self.words = _INNER.sub("", told)[:_SHOWN]
        return False


def _place(parent: str | None) -> tuple[int, int, int]:
    """Trace, span and flags of a `traceparent`; zeros for what is none. A version of later days may say more behind them."""
    found = None if parent is None else _TRACEPARENT.fullmatch(parent)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return 0, 0, 0
    return int(found[2], 16), int(found[3], 16), int(found[4], 16)


def _told_resource() -> Resource:
    told = Resource.create()
    named = str(told.attributes.get("service.name", ""))
    if not named.startswith("unknown_service"):
        return told
    return Resource({name: value for name, value in told.attributes.items() if name != "service.name"})


def _given(attributes: Attributes) -> dict[str, str | bool | int | float | Sequence[str]]:
    return {name: value for name, value in attributes.items() if value is not None}


def _tell_error(span: SdkSpan, error: str | None) -> None:
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
