"""The short way to start a run, to run and wait, and to ask for a run: plain ASGI, for requests that nothing is unusual about.

Whatever is (a dry run, a parameter that is not known, a body that is no JSON or has a mistake) goes to FastAPI's route of the same
path, which is the one that is documented and the only one that says what is wrong. Nothing is stored before that is decided.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from api.asgi import App, Receive, Scope, Send, read_body, send_json
from api.request_spans import context_of
from api.run_outcome import Answer, accepted, outcome
from api.services import Services
from api.submissions import AnyRunRequest, Caller, RunRequest, start_run
from engine.views import run_view

Asked = TypeVar("Asked", bound=RunRequest)

LONGEST_WAIT_S = 3600.0
USUAL_WAIT_S = 300.0
_WAIT = re.compile(rb"wait=(\d{1,6}(?:\.\d{1,6})?)")
_ONE = r"(?P<name>[^/\0]+)"
_POST = re.compile(rf"/v1/workflows/{_ONE}/runs|/v1/workflow/(?P<waited>[^/\0]+)|(?P<any>/v1/runs)")
_GET = re.compile(rf"/v1/runs/{_ONE}")


class _Unusual(Exception):
    """A request that is FastAPI's to answer."""


@dataclass(frozen=True, slots=True)
class _Route:
    """Names the route of a request, as FastAPI does it, for its span."""

    path: str


@dataclass(frozen=True, slots=True)
class HotRuns:
    """Finds the short way of a request. `long_way` is the application that answers all the others."""

    services: Services
    long_way: App

    def endpoint(self, scope: Scope) -> App | None:
        """What answers a request to such a path; None for all other paths."""
        path = scope["path"]
        if scope["method"] == "GET":
            found = _GET.fullmatch(path)
            if found is None:
                return None
            return self._short(scope, "/v1/runs/{run_id}", lambda scope, _: self._show(scope, found["name"]))
        if scope["method"] != "POST" or (found := _POST.fullmatch(path)) is None:
            return None
        if found["any"]:
            return self._short(scope, path, self._start_any)
        if found["waited"]:
            route = "/v1/workflow/{name}"
            return self._short(scope, route, lambda scope, body: self._run_and_wait(scope, body, found["waited"]))
        route = "/v1/workflows/{name}/runs"
        return self._short(scope, route, lambda scope, body: self._start(scope, body, found["name"]))

    def _short(self, scope: Scope, route: str, answer: Callable[[Scope, bytes], Awaitable[Answer]]) -> App:
        scope["route"] = _Route(route)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            body = await read_body(receive)
            try:
                told = await answer(scope, body)
            except _Unusual:
                del scope["route"]
                await self.long_way(scope, _again(body, receive), send)
                return
            await send_json(send, told.status, told.body, told.headers)

        return app

    async def _start(self, scope: Scope, body: bytes, workflow: str) -> Answer:
        _no_query(scope)
        caller, asked = _read(scope, body, RunRequest)
        return accepted((await start_run(self.services, workflow, asked, caller)).run)

    async def _start_any(self, scope: Scope, body: bytes) -> Answer:
        _no_query(scope)
        caller, asked = _read(scope, body, AnyRunRequest)
        return accepted((await start_run(self.services, asked.workflow, asked, caller)).run)

    async def _run_and_wait(self, scope: Scope, body: bytes, workflow: str) -> Answer:
        wait_s = _wait_s(scope, USUAL_WAIT_S)
        caller, asked = _read(scope, body, RunRequest)
        started = await start_run(self.services, workflow, asked, caller)
        watch = self.services.run_watch
        return await watch.told_at_end(started.run["id"], wait_s, outcome, just_made=started.created)

    async def _show(self, scope: Scope, run_id: str) -> Answer:
        wait_s = _wait_s(scope, 0)
        return Answer(await self.services.run_watch.told_at_end(run_id, wait_s, run_view), 200)


def _again(body: bytes, receive: Receive) -> Receive:
    """A request whose body was read, for whoever reads it from its beginning."""
    told = False

    async def again() -> dict[str, Any]:
        nonlocal told
        if told:
            return dict(await receive())
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _no_query(scope: Scope) -> None:
    if scope["query_string"]:
        raise _Unusual


def _wait_s(scope: Scope, usual_s: float) -> float:
    if not scope["query_string"]:
        return usual_s
    found = _WAIT.fullmatch(scope["query_string"])
    if found is None or (wait_s := float(found[1])) > LONGEST_WAIT_S:
        raise _Unusual
    return wait_s


def _read(scope: Scope, body: bytes, model: type[Asked]) -> tuple[Caller, Asked]:
    """Who asks and for what. An empty body asks for nothing but the run, where the model allows it."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, value)
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if body and kind != b"application/json":
        raise _Unusual
    try:
        asked = model.model_validate(json.loads(body) if body else {})
    except (ValueError, RecursionError) as error:  # no JSON, or pydantic's findings
        raise _Unusual from error
    key = headers.get(b"idempotency-key")
    state = scope["state"]
    idempotency_key = None if key is None else key.decode("latin-1")
    return Caller(state["request_id"], state.get("key_id"), idempotency_key, context_of(scope)), asked
