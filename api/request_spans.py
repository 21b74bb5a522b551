"""The span of an HTTP request, by OpenTelemetry's conventions for servers: what everything that it causes hangs below."""

from typing import Any

from api.asgi import Scope
from engine.tracing import Span, Tracer

_NOT_TRACED = frozenset({"/", "/health", "/ready", "/metrics", "/favicon.ico"})
_PAGES = "/dashboard"
_HANDS_ON = "/mcp"  # its requests ask this program's own API, with the headers that they came with
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})


def begin_span(tracer: Tracer, scope: Scope) -> Span | None:
    """Begin the request's span, below the client's where it sent a `traceparent`. None for what only looks whether we are there, and for
    pages, which ask for themselves every second.
    """
    path: str = scope["path"]
    told: str = scope["method"]
    method = told if told in _METHODS else "_OTHER"
    if path in _NOT_TRACED or (told == "GET" and path.startswith(_PAGES)):
        return None
    headers: dict[bytes, bytes] = dict(scope["headers"])
    parent = headers.get(b"traceparent")
    server: tuple[str, int | None] = scope.get("server") or ("", None)
    client: tuple[str, int] | None = scope.get("client")
    span = tracer.start(
        "HTTP" if method == "_OTHER" else method,
        "server",
        None if parent is None else parent.decode("latin-1"),
        {
            "http.request.method": method,
            "http.request.method_original": told if method == "_OTHER" else None,
            "url.path": path,
            "url.scheme": scope.get("scheme", "http"),
            "server.address": server[0] or None,
            "server.port": server[1],
            "client.address": client[0] if client else None,
            "user_agent.original": headers.get(b"user-agent", b"").decode("latin-1")[:200] or None,
            "aigateway.request.id": scope["state"]["request_id"],
        },
    )
    if path == _HANDS_ON:
        others = [pair for pair in scope["headers"] if pair[0] != b"traceparent"]
        scope["headers"] = [*others, (b"traceparent", span.context.encode())]
    return span


def end_span(span: Span, scope: Scope, status: int | None, *, hot: bool) -> None:
    """The request was answered with `status`; None: its client left first. A path that no route has is not among the names."""
    plain = hot or scope["path"] == _HANDS_ON  # no route of FastAPI's
    route: Any = scope["path"] if plain else getattr(scope.get("route"), "path", None)
    method = scope["method"] if scope["method"] in _METHODS else "HTTP"
    error = str(status) if status is not None and status >= 500 else None
    span.end(
        {"http.route": route, "http.response.status_code": status, "aigateway.key.id": scope["state"].get("key_id")},
        error=error,
        name=f"{method} {route}" if route else None,
    )


def context_of(scope: Scope) -> str | None:
    """The place of a request in its trace, for what goes on elsewhere; None where it is not traced."""
    span: Span | None = scope["state"].get("span")
    return None if span is None else span.context
