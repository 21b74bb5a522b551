"""How the rooms tell what they do to whoever traces it: spans, and the text that carries one span's place to other processes.

`aigateway.otel` makes them where OpenTelemetry is asked for. Where it is not there is no tracer and no span: every place that
would tell something asks for None first, and nothing else is paid. No span holds a prompt, an answer, or an error's words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Attributes = Mapping[str, str | bool | int | float | Sequence[str] | None]
"""By the names of OpenTelemetry's semantic conventions, else under `aigateway.`; None: left out."""
SpanKind = Literal["internal", "server", "client"]

_NO_SPAN = "0" * 16


@dataclass(frozen=True, slots=True)
class Work:
    """What was done below a span and is over; times in microseconds since 1970. `error` is the class of what went wrong."""

    name: str
    kind: SpanKind
    began_us: int
    ended_us: int
    attributes: Attributes
    error: str | None = None


class Span(Protocol):
    """Something under way. Nothing here waits for anything or raises."""

    @property
    def context(self) -> str:
        """Its place in the trace, as the W3C header `traceparent` (55 characters): a parent for spans anywhere."""
        ...

    def add(self, work: Work) -> None:
        """Tell of something that was done below it, also after its end."""
        ...

    def end(self, attributes: Attributes, *, error: str | None = None, name: str | None = None) -> None:
        """It is over. `name` replaces the one it began with."""
        ...


class Tracer(Protocol):
    """Starts spans, on the event loop's thread alone."""

    def start(self, name: str, kind: SpanKind, parent: str | None, attributes: Attributes) -> Span:
        """A span that begins now. `parent` is a `traceparent`; None, and what is none: it begins a trace."""
        ...


def context_of_run(run: Mapping[str, Any]) -> str:
    """Where a run's steps belong: below what submitted it, else (a schedule, a submission that nobody traced) at the top of a trace
    that has the run's own id, so that all of them share one.
    """
    return run["trace_context"] or f"00-{run['id'].replace('-', '')}-{_NO_SPAN}-01"


def trace_id(span: Span) -> str:
    """Its trace, as log lines and collectors name it: 32 hexadecimal digits."""
    return span.context[3:35]
