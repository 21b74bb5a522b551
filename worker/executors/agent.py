"""The `agent` step and its questions: the agent looks up its tools once; a question tells the model all that was said so far and
gives its answer, or the calls that it asks for. What follows is `engine.agents`' to do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.agent_steps import AGENT, ANY_TOOL, ASK, CALL, split_tool
from engine.depth import is_too_deep
from engine.errors import NotFound, UserError
from engine.llm_keys import MAX_TOOLS, NOT_EXTRA_OF_AGENTS
from engine.nearest import nearest
from engine.ports import (
    AskedForTools,
    Conversation,
    Failed,
    Job,
    Opened,
    Outcome,
    StepExecutor,
    Succeeded,
    ToolCall,
)
from engine.states import ErrorClass
from mcp_bridge.bridge import McpBridge
from mcp_bridge.catalogue import Tool
from mcp_bridge.errors import ToolError
from providers.errors import ProviderError
from providers.failover import Completed
from providers.provider import Json, ProviderType
from providers.routing import Route
from providers.shapes import as_object, as_objects, as_text
from providers.translate.thoughts import THOUGHT_KEYS, with_thoughts_for
from providers.wording import Request, Wording
from worker.executors.agent_call import AgentCallExecutor
from worker.executors.llm import (
    LEAST_TOKENS,
    LlmExecutor,
    answer_format,
    checked_answer,
    repair,
    request_body,
    text_of_answer,
)

MAX_CALLS = 128  # of one answer
_LONGEST_NAME = 64
_LONGEST_DESCRIPTION = 1024  # OpenAI's limit
_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]+")  # what the dialects do not take in a tool's name


@dataclass(frozen=True, slots=True)
class AgentExecutor:
    """engine.ports.StepExecutor for `agent`: finds its tools, which all its turns then have."""

    bridge: McpBridge

    async def execute(self, job: Job) -> Outcome:
        """A tool that is not there fails the step, and so does one that should wait for approval and is not there."""
        try:
            tools = await self._find(job.step.fields["tools"])
        except NotFound as error:
            return Failed(ErrorClass.INVALID_REQUEST, error.message, final=True)
        except ToolError as error:
            return Failed(error.error_class, error.message, error.retry_after_s)
        known = [f"{tool.server}/{tool.name}" for tool in tools]
        if not tools or len(tools) > MAX_TOOLS:
            message = f"tools comes to {len(tools)} tools, it has to be 1 to {MAX_TOOLS}"
            return Failed(ErrorClass.INVALID_REQUEST, message, final=True)
        for entry in job.step.fields.get("approve", ()):
            if split_tool(entry)[1] != ANY_TOOL and entry not in known:
                near = nearest(entry, known)
                message = f"approve names '{entry}', which the server has not got" + (
                    f"; did you mean {near}?" if near else ""
                )
                return Failed(ErrorClass.INVALID_REQUEST, message, final=True)
        return Opened(offers(tools))

    async def _find(self, entries: Sequence[str]) -> list[Tool]:
        """Raises: NotFound, ToolError."""
        found: dict[tuple[str, str], Tool] = {}
        for entry in entries:
            server, name = split_tool(entry)
            tools = await self.bridge.tools_of(server) if name == ANY_TOOL else [await self.bridge.find(name, server)]
            found |= {(tool.server, tool.name): tool for tool in tools}
        return list(found.values())


@dataclass(frozen=True, slots=True)
class AskExecutor:
    """engine.ports.StepExecutor for an agent's questions."""

    llm: LlmExecutor

    async def execute(self, job: Job) -> Outcome:
        """Raises: BudgetExceeded, and what rendering raises."""
        assert job.agent is not None
        talk = await job.agent.conversation()
        body = _body(job, talk)
        try:
            route = await self.llm.router.resolve(body["model"])
            done = await self._complete(job, route, body)
            if not isinstance(done, Completed):
                return done
            calls = _calls(done, job.key, talk)
            if len(calls) > MAX_CALLS:
                return Failed(
                    ErrorClass.INVALID_OUTPUT, f"the model asked for {len(calls)} calls at once, at most {MAX_CALLS}"
                )
            if calls:
                return AskedForTools(_kept(done, calls), calls, f"{done.provider}/{done.model}")
            return await self._answered(job, route, body, done)
        except ProviderError as error:
            return Failed(error.error_class, error.message, error.retry_after_s)

    async def _answered(self, job: Job, route: Route, body: Json, done: Completed) -> Outcome:
        """The agent's result. What does not follow the schema is repaired once, by a request that offers no tools."""
        schema = job.step.fields.get("schema")
        if schema is None:
            return Succeeded(text_of_answer(done), model=f"{done.provider}/{done.model}")
        value, mistake = await checked_answer(done, schema)
        if mistake is not None:
            again = repair(body, text_of_answer(done) or "(nothing)", mistake)
            again |= {"tool_choice": "none", "response_format": answer_format(schema)}
            repaired = await self._complete(job, route, again)
            if not isinstance(repaired, Completed):
                return repaired
            done = repaired
            value, mistake = await checked_answer(done, schema)
        if mistake is not None:
            return Failed(ErrorClass.INVALID_OUTPUT, f"the answer does not follow the schema: {mistake}")
        return Succeeded(value, model=f"{done.provider}/{done.model}")

    async def _complete(self, job: Job, route: Route, body: Json) -> Completed | Failed:
        """An answer as long as the money allows: the run's (which pauses without), and the agent's own (which fails)."""
        assert job.agent is not None
        least = min(LEAST_TOKENS, body["max_tokens"])
        fits = self.llm.affordable_tokens(route, body, await job.book.remaining_picousd())
        own = self.llm.affordable_tokens(route, body, await job.agent.left_picousd())
        if own is not None and own < least:
            cap = job.step.fields["max_cost_usd"]
            message = (
                f"less than {LEAST_TOKENS} tokens of an answer fit into what is left of the agent's max_cost_usd {cap}"
            )
            return Failed(ErrorClass.BUDGET_EXCEEDED, message, final=True)
        limits = [max(limit, least) for limit in (fits, own) if limit is not None]  # too little: the book says of what
        body = {**body, "max_tokens": min([body["max_tokens"], *limits])}
        return await self.llm.complete(job, route, Request(body, lambda target: _worded(body, target)))


def agent_executors(llm: LlmExecutor, bridge: McpBridge) -> dict[str, StepExecutor]:
    """What runs agents, by step type."""
    return {AGENT: AgentExecutor(bridge), ASK: AskExecutor(llm), CALL: AgentCallExecutor(bridge)}


def offers(tools: Sequence[Tool]) -> list[Json]:
    """The tools with the names that the model calls them by: their own, with the server's where two share one."""
    own = [tool.name for tool in tools]
    used: set[str] = set()
    made: list[Json] = []
    for tool in tools:
        wanted = tool.name if own.count(tool.name) == 1 else f"{tool.server}_{tool.name}"
        made.append(
            {
                "name": _free(_NO_NAME.sub("_", wanted) or "tool", used),
                "server": tool.server,
                "tool": tool.name,
                "description": tool.description[:_LONGEST_DESCRIPTION],
                "parameters": {"type": "object", "properties": {}, **tool.input_schema},
            }
        )
    return made


def _free(wanted: str, used: set[str]) -> str:
    name, number = wanted[:_LONGEST_NAME], 1
    while name in used:
        number += 1
        name = f"{wanted[: _LONGEST_NAME - 4]}_{number}"
    used.add(name)
    return name


def _body(job: Job, talk: Conversation) -> Json:
    """The whole request. An answer's format is told in words: a model that is held to a format cannot call tools everywhere."""
    body = request_body({name: value for name, value in job.step.fields.items() if name != "schema"}, job.scope)
    for name in sorted(NOT_EXTRA_OF_AGENTS):
        if name in body:
            raise UserError("invalid_value", f"extra cannot hold {name}: an agent has its `tools`")
    messages: list[Json] = body["messages"]
    schema = job.step.fields.get("schema")
    if schema is not None:
        told = f"When you have what you need, answer with JSON alone that follows this JSON Schema: {orjson.dumps(schema).decode()}"
        behind = next((at for at, one in enumerate(messages) if one.get("role") != "system"), len(messages))
        messages.insert(behind, {"role": "system", "content": told})
    body["messages"] = messages + talk.messages
    body["tools"] = [
        {"type": "function", "function": {name: tool[name] for name in ("name", "description", "parameters")}}
        for tool in talk.tools
    ]
    return body


def _worded(body: Json, target: ProviderType) -> Wording:
    messages, _ = with_thoughts_for(target, body["messages"])
    return Wording({**body, "messages": messages})


def _calls(done: Completed, key: str, talk: Conversation) -> tuple[ToolCall, ...]:
    """The calls that an answer asks for. Ids are made where they are missing or double: every result has to find its call."""
    known: Mapping[str, str] = {tool["name"]: f"{tool['server']}/{tool['tool']}" for tool in talk.tools}
    message = as_object(done.answer.body["choices"][0]["message"])
    calls: list[ToolCall] = []
    for number, asked in enumerate(as_objects(message.get("tool_calls"))):
        function = as_object(asked.get("function"))
        name = _NO_NAME.sub("_", as_text(function.get("name")))[:_LONGEST_NAME] or "tool"
        call_id = as_text(asked.get("id"))
        if not call_id or any(call_id == other.id for other in calls):
            call_id = f"call_{re.sub(r'[^0-9]+', '_', key).strip('_')}_{number}"
        calls.append(ToolCall(call_id, name, known.get(name), _arguments(function.get("arguments"))))
    return tuple(calls)


def _arguments(told: Any) -> dict[str, Any] | str:
    text = as_text(told)
    try:
        value: Any = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text
    storable = isinstance(value, dict) and not is_too_deep([value])  # one level further down, in the row of the call
    return as_object(value) if storable else text


def _kept(done: Completed, calls: Sequence[ToolCall]) -> Json:
    """The answer as later questions repeat it. Arguments that are no object would be refused there: they are shown as text in one."""
    message = as_object(done.answer.body["choices"][0]["message"])
    kept: Json = {"role": "assistant", "content": message.get("content") or None}
    kept |= {name: message[name] for name in sorted(THOUGHT_KEYS) if message.get(name)}
    kept["tool_calls"] = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _told(call.arguments)}}
        for call in calls
    ]
    return kept


def _told(arguments: dict[str, Any] | str) -> str:
    return orjson.dumps({"invalid": arguments} if isinstance(arguments, str) else arguments).decode()
