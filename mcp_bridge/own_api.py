"""Our own HTTP API, asked on behalf of an MCP client: what it may do, what it is charged and what is refused is the API's to say.

Over the network for the server on stdio, and without one, straight into the application, for the server at `/mcp`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from operator import itemgetter
from typing import Any, cast
from urllib.parse import quote

import httpx2

from engine.errors import FatalError, NotFound, RetryableError, UserError
from engine.keys import MAX_NAME, WORKFLOW_NAME_PATTERN
from engine.loader import load
from mcp_bridge.catalogue import unknown_tool
from mcp_bridge.offers import (
    GET_RUN,
    LONGEST_NAME,
    Answer,
    Offer,
    get_run_offer,
    passed_name,
    run_answer,
    tool_answer,
    tool_offer,
    workflow_offer,
)

Headers = Mapping[str, str]
Progress = Callable[[float, str], Awaitable[None]]

_POLL_S = 2
_SILENT_POLL_S = 20
_PATIENCE_S = 60.0
_PAUSE_S = 0.5
_STOPPED = ("succeeded", "failed", "cancelled", "paused")


class OwnApi:
    """The tools that the API has to offer, and calls of them. `headers` are the caller's credentials."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._known: dict[str, tuple[str, Offer]] = {}

    async def offers(self, headers: Headers) -> list[Offer]:
        """Every workflow, `get_run`, and the tools of connected servers where the gateway passes them on. Raises: AIGatewayError."""
        listed = await self._workflows(headers)
        known = self._known
        self._known = {entry["name"]: await self._offer(entry, known, headers) for entry in listed}
        named = [get_run_offer(), *(tool_offer(tool) for tool in await self._tools(headers))]
        taken = {offer.name for offer in named}
        return [offer for _, offer in self._known.values() if offer.name not in taken] + named

    async def call(
        self, name: str, arguments: Mapping[str, Any], headers: Headers, progress: Progress | None
    ) -> Answer:
        """Call a tool of that name. Raises: NotFound(tool_not_found) where there is none, else AIGatewayError.

        A workflow is waited for to its end; the run goes on where this is cancelled.
        """
        if name == GET_RUN:
            return await self._look(arguments, headers)
        if ("__" in name or len(name) == LONGEST_NAME) and (tool := await self._passed(name, headers)):
            body = {"params": dict(arguments), "server": tool["server"]}
            told = await self._ask("POST", f"/v1/mcp/tools/{quote(tool['name'], safe='')}", headers, body)
            return tool_answer(told["result"])
        if re.fullmatch(WORKFLOW_NAME_PATTERN, name) and len(name) <= MAX_NAME:
            try:
                return await self._run(name, arguments, headers, progress)
            except NotFound as error:
                if error.code != "workflow_not_found":
                    raise
        raise unknown_tool(name, [offer.name for offer in await self.offers(headers)], server="aigateway")

    async def _workflows(self, headers: Headers) -> list[Mapping[str, Any]]:
        listed: list[Mapping[str, Any]] = []
        where = "/v1/workflows?limit=200"
        while True:
            told = await self._ask("GET", where, headers)
            listed += told["data"]
            if told["next_cursor"] is None:
                return sorted(listed, key=itemgetter("name"))
            where = f"/v1/workflows?limit=200&cursor={told['next_cursor']}"

    async def _offer(
        self, entry: Mapping[str, Any], known: Mapping[str, tuple[str, Offer]], headers: Headers
    ) -> tuple[str, Offer]:
        name, digest = str(entry["name"]), str(entry["digest"])
        if name in known and known[name][0] == digest:
            return known[name]
        told = await self._ask("GET", f"/v1/workflows/{quote(name, safe='')}", headers)
        try:
            definition = await asyncio.to_thread(load, told["config_yaml"], name=name)
        except UserError:  # of a release that knows more
            return digest, workflow_offer(name, "", None)
        return digest, workflow_offer(name, definition.description, definition.inputs)

    async def _passed(self, name: str, headers: Headers) -> Mapping[str, Any] | None:
        """The connected tool that is passed on under this name."""
        tools = await self._tools(headers)
        return next((tool for tool in tools if passed_name(tool["server"], tool["name"]) == name), None)

    async def _tools(self, headers: Headers) -> list[Mapping[str, Any]]:
        return (await self._ask("GET", "/v1/mcp/tools?passed=true", headers))["data"]

    async def _run(
        self, name: str, arguments: Mapping[str, Any], headers: Headers, progress: Progress | None
    ) -> Answer:
        path = f"/v1/workflows/{quote(name, safe='')}/runs"
        run_id: str = (await self._ask("POST", path, headers, {"input": dict(arguments)}))["id"]
        loop = asyncio.get_running_loop()
        started = loop.time()
        if progress is not None:
            await progress(0, f"run {run_id} is queued")
        wait_s = _SILENT_POLL_S if progress is None else _POLL_S
        while True:
            run = await self._patiently(f"/v1/runs/{run_id}?wait={wait_s}", headers)
            if run["status"] in _STOPPED:
                return run_answer(run)
            if progress is not None:
                steps = await self._steps(run_id, headers)
                await progress(round(loop.time() - started, 1), _standing(run, steps))

    async def _look(self, arguments: Mapping[str, Any], headers: Headers) -> Answer:
        run_id = arguments.get("run_id")
        if not isinstance(run_id, str) or len(run_id) > MAX_NAME:
            raise UserError("invalid_input", "run_id has to be the id of a run", param="run_id")
        return run_answer(await self._ask("GET", f"/v1/runs/{quote(run_id, safe='')}?wait={_SILENT_POLL_S}", headers))

    async def _steps(self, run_id: str, headers: Headers) -> list[Any]:
        steps: list[Any] = []
        cursor = ""
        while True:
            page = await self._patiently(f"/v1/runs/{run_id}/steps?limit=200{cursor}", headers)
            steps += page["data"]
            if page["next_cursor"] is None:
                return steps
            cursor = f"&cursor={quote(page['next_cursor'], safe='')}"

    async def _patiently(self, path: str, headers: Headers) -> Any:
        """A server that restarts meanwhile is waited for, a minute."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while True:
            try:
                return await self._ask("GET", path, headers)
            except RetryableError:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await asyncio.sleep(_PAUSE_S)

    async def _ask(self, method: str, path: str, headers: Headers, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = await self._http.request(method, path, headers=dict(headers), json=body)
            told: Any = answer.json()
        except httpx2.TransportError as error:
            raise RetryableError("server_unreachable", f"no server answers at {self._http.base_url}") from error
        except ValueError as error:
            raise FatalError("not_json", f"{self._http.base_url} answered no JSON: is it an aigateway?") from error
        if answer.is_error:
            raise _refusal(answer.status_code, told)
        return told


def _standing(run: Mapping[str, Any], steps: list[Mapping[str, Any]]) -> str:
    done = sum(step["status"] in ("succeeded", "skipped") for step in steps)
    busy = [str(step["id"]) for step in steps if step["status"] in ("running", "waiting")]
    now = f", {busy[0]} is under way" if busy else ""
    return f"run {run['id']} is {run['status']}: {done} of {len(steps)} steps done{now}"


def _refusal(status: int, told: Any) -> UserError | RetryableError | FatalError:
    error: Mapping[str, Any] = cast("dict[str, Any]", told).get("error", {}) if isinstance(told, dict) else {}
    code, message = str(error.get("code")), str(error.get("message") or f"the server answered {status}")
    found: list[Mapping[str, Any]] = error.get("details") or []
    details = [f"{mistake.get('path')}: {mistake.get('message')}" for mistake in found]
    if len(details) > 1:
        message = f"{message} ({'; '.join(details[:20])})"
    if status == 404:
        return NotFound(code, message)
    if status >= 500 or status == 429:
        return RetryableError(code, message)
    return UserError(code, message)
