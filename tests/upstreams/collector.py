"""An OpenTelemetry collector: takes OTLP over HTTP on a real socket, and refuses what is no protobuf of spans."""

import gzip
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire

KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class Seen:
    """A span as it came over the wire; ids in hexadecimal, parent "" at the top of a trace."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    attributes: dict[str, Any]
    failed: bool
    status_message: str
    resource: dict[str, Any]
    begin_ns: int
    end_ns: int


class Collector:
    """What it was sent. `hangs`: it takes connections and never answers."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.spans: list[Seen] = []
        self.raw = b""
        self.requests = 0
        self.headers: dict[str, str] = {}
        over = self._over = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if hangs:
                    over.wait(60)
                    return
                self.send_response(collector._take(self.path, dict(self.headers.items()), body))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def listening(self) -> Generator["Collector"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def wait(self, condition: Callable[[list[Seen]], bool], timeout_s: float = 15.0) -> list[Seen]:
        """The spans once the condition holds. Raises: AssertionError with what there is."""
        end = time.monotonic() + timeout_s
        while not condition(self.spans):
            assert time.monotonic() < end, [(span.name, span.trace) for span in self.spans]
            time.sleep(0.02)  # another process: there is nothing to wait on but what it sends
        return list(self.spans)

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        self.requests += 1
        self.headers = {name.lower(): value for name, value in headers.items()}
        if path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            return 404
        body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        try:
            sent = ExportTraceServiceRequest.FromString(body)
        except DecodeError:
            return 400
        self.raw += body
        for of_process in sent.resource_spans:
            resource = _values(of_process.resource.attributes)
            self.spans += [_seen(span, resource) for scope in of_process.scope_spans for span in scope.spans]
        return 200


def _seen(span: Wire, resource: dict[str, Any]) -> Seen:
    return Seen(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=KINDS[span.kind],
        attributes=_values(span.attributes),
        failed=span.status.code == 2,
        status_message=span.status.message,
        resource=resource,
        begin_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: AnyValue) -> Any:
    kind = str(value.WhichOneof("value"))
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
