"""The few pieces of plain ASGI that hot routes are made of: read a body, send JSON, send events, notice that the client left."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeVar, cast

import orjson
from starlette.responses import JSONResponse

from api.errors import HttpError, Problem
from api.json_mistakes import TOO_DEEP, why_no_json
from engine.depth import MAX_DEPTH, is_too_deep

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 32 * 1024 * 1024
_FEW_DIGITS = len(str(MAX_BODY_BYTES)) - 1  # a length of so many is small enough
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BROKEN = "aigateway.broken"  # a key of our own in the last message: servers pass over it
_WATCHED_AFTER_S = 0.05
_EVENT_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


async def read_body(receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """The request's body. Raises: HttpError for one that is too large."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(499, "client_closed", "the client went away before its request was complete")
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def check_body_headers(scope: Scope) -> None:
    """Refuse a body by what its request says of it, before any of it is read. Raises: HttpError."""
    for name, told in scope["headers"]:
        if name == b"content-length" and len(told) > _FEW_DIGITS and _is_large(told):
            raise too_large(MAX_BODY_BYTES)
        if name == b"content-encoding" and told.lower() != b"identity":
            words = f"a body with content-encoding {told.decode('latin-1')} is not taken: send it uncompressed"
            raise HttpError(
                415, "unsupported_media_type", words, param="content-encoding", headers={"accept-encoding": "identity"}
            )


def _is_large(length: bytes) -> bool:
    digits = length.lstrip(b"0")  # of which there may be more than Python reads as a number
    return len(digits) > _FEW_DIGITS + 1 or (digits.isdigit() and int(digits) > MAX_BODY_BYTES)


def too_large(limit: int) -> HttpError:
    """What a body of more than `limit` bytes is answered."""
    return HttpError(413, "body_too_large", f"the body is larger than {limit // 1024 // 1024} MiB")


async def read_json_object(receive: Receive) -> dict[str, Any]:
    """The request's body. Raises: HttpError for one that is too large, no JSON or no object."""
    data = await read_body(receive)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, "invalid_json", why_no_json(data, error)) from error
    if not isinstance(body, dict):
        raise HttpError(400, "invalid_json", "the body must be a JSON object")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and is_too_deep(body):
        raise HttpError(400, "invalid_json", TOO_DEEP)
    return cast("dict[str, Any]", body)


def json_bytes(body: Any) -> bytes:
    """A body that any client can read: what no UTF-8 can hold is escaped."""
    try:
        return orjson.dumps(body)
    except TypeError:  # integers beyond 64 bits, lone surrogates, more levels than orjson takes
        return json.dumps(body, separators=(",", ":")).encode()


class JsonAnswer(JSONResponse):
    """Starlette's, for the values that runs hold: half of a surrogate pair from a client or a model breaks no answer."""

    def render(self, content: Any) -> bytes:
        """See `json_bytes`."""
        return json_bytes(content)


async def send_json(send: Send, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
    """A whole answer."""
    data = json_bytes(body)
    told = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
    await send({"type": "http.response.start", "status": status, "headers": encode_headers(told)})
    await send({"type": "http.response.body", "body": data})


async def send_problem(send: Send, problem: Problem) -> None:
    """A whole error answer."""
    await send_json(send, problem.status, problem.body, problem.headers)


async def start_events(send: Send, headers: Mapping[str, str]) -> None:
    """Begin an event stream."""
    told = encode_headers({**_EVENT_HEADERS, **headers})
    await send({"type": "http.response.start", "status": 200, "headers": told})


def data_frames(events: Iterable[Any]) -> bytes:
    """Events as `data:` frames."""
    frames = b""
    for event in events:  # of which there is one, almost always
        frames += b"data: " + json_bytes(event) + b"\n\n"
    return frames


def named_frames(events: Iterable[dict[str, Any]]) -> bytes:
    """Frames of events that name themselves under `type`."""
    return b"".join(b"event: " + event["type"].encode() + b"\ndata: " + json_bytes(event) + b"\n\n" for event in events)


async def send_frames(send: Send, frames: bytes) -> None:
    """Frames of an event stream in one piece; nothing where there are none."""
    if frames:
        await send({"type": "http.response.body", "body": frames, "more_body": True})


async def end_events(send: Send, last: bytes = b"", *, broken: bool = False) -> None:
    """End an event stream; `broken`: what was told of the answer is not all of it."""
    await send({"type": "http.response.body", "body": last, "more_body": False, _BROKEN: broken})


def is_broken(message: Message) -> bool:
    """Whether the message ends a stream that was not told to its end."""
    return message.get(_BROKEN, False)


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Header values are latin-1 on the wire, without control characters; what does not fit, as in a client's model name, is replaced."""
    return [(name.encode(), _fit(value).encode("latin-1", "replace")) for name, value in headers.items()]


def _fit(value: str) -> str:
    return value if value.isprintable() else _CONTROL.sub("?", value)


async def until_disconnect(receive: Receive) -> None:
    """Return when the client has gone away. Call it after the body was read."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def unless_disconnected(work: Awaitable[T], receive: Receive, *, cancel: bool) -> T | None:
    """The result of `work`, or None where the client left first and `cancel` says that `work` is then cancelled.

    Otherwise it goes on to its end: what is sent to a client that has gone is dropped by the server. A client that leaves at
    once is seen a moment later: short work is done before a task that watches for it would be of use.
    """
    if not cancel:
        return await work
    left = over = False
    loop = asyncio.get_running_loop()
    working = asyncio.current_task(loop)
    assert working is not None
    stop = working.cancel
    watching: asyncio.Task[None] | None = None

    def leave(_: object) -> None:
        nonlocal left
        if not over:  # else it was called for before the work was done, and comes after it
            left = True
            stop()

    def watch() -> None:
        nonlocal watching
        watching = loop.create_task(until_disconnect(receive))
        watching.add_done_callback(leave)

    soon = loop.call_later(_WATCHED_AFTER_S, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        working.uncancel()
        return None
    finally:
        over = True
        soon.cancel()
        if watching is not None:
            watching.cancel()
