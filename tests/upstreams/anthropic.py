"""A strict stand-in for Anthropic: `/v1/messages`, `/v1/messages/count_tokens`, `/v1/models`, two versions of the API."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from aiohttp import web
from upstreams.answers import IMAGE_TOKENS, Prompt, Reply, count_words, reply_to
from upstreams.anthropic_schema import BLOCKS, MESSAGE, REFUSED_IN_SCHEMAS, REQUEST, REQUEST_WITH_SAMPLING
from upstreams.checks import Checker, Mistake
from upstreams.control import Call, Fault
from upstreams.server import Handler, Piece, Refused, Upstream

VERSIONS = {"2023-06-01": Checker(REQUEST_WITH_SAMPLING), "2026-10-21": Checker(REQUEST)}
_MESSAGE = Checker(MESSAGE)
_BLOCKS = {kind: Checker(schema) for kind, schema in BLOCKS.items()}
_ALLOWED = {
    "user": {"text", "image", "document", "tool_result"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking"},
}
_STATUS_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class AnthropicUpstream(Upstream):
    """`base_url` has no path."""

    default_models = ("claude-sonnet-4-5", "claude-sonnet-5-5", "claude-haiku-5-5")
    malformed = b'event: content_block_delta\ndata: {"type": "content_blo\n\n'

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("POST", "/v1/messages", partial(self.serve, answer=self._messages)),
            ("POST", "/v1/messages/count_tokens", self._count),
            ("GET", "/v1/models", self._list),
        ]

    def error_body(self, status: int, message: str, **fields: Any) -> Any:
        kind = fields.get("type") or _STATUS_TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_test"}

    def error_piece(self, fault: Fault) -> bytes:
        body = self.error_body(fault.status, fault.message, type=fault.type)
        return f"event: error\ndata: {json.dumps(body)}\n\n".encode()

    def _version(self, request: web.Request) -> str:
        key = request.headers.get("x-api-key")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not key and not bearer:
            raise Refused(401, "x-api-key header is required")
        if (key or bearer) != self.key:  # where both are sent, x-api-key wins
            raise Refused(401, "invalid x-api-key")
        version = request.headers.get("anthropic-version")
        if not version:
            raise Refused(400, "anthropic-version: header is required")
        if version not in VERSIONS:
            raise Refused(400, f"anthropic-version: {version} is not a valid version")
        return version

    def _know(self, model: str) -> None:
        if model not in self.models:
            raise Refused(404, f"model: {model}")

    async def _list(self, request: web.Request) -> web.Response:
        try:
            self._version(request)
        except Refused as refused:
            return web.json_response(self.error_body(refused.status, refused.message), status=refused.status)
        rows = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
            for name in self.models
        ]
        return web.json_response(
            {"data": rows, "has_more": False, "first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        )

    async def _count(self, request: web.Request) -> web.Response:
        try:
            version = self._version(request)
            body = await request.json()
            body = {"max_tokens": 1, **body}
            check_messages(body, version)
            self._know(body["model"])
        except Refused as refused:
            return web.json_response(self.error_body(refused.status, refused.message), status=refused.status)
        return web.json_response({"input_tokens": _prompt(body).words})

    async def _messages(self, request: web.Request, body: Any, call: Call, fault: Fault | None) -> web.StreamResponse:
        version = self._version(request)
        check_messages(body, version)
        self._know(body["model"])
        prompt = _prompt(body)
        if prompt.words > self.context:
            raise Refused(400, f"prompt is too long: {prompt.words} tokens > {self.context} maximum")
        reply = reply_to(prompt)
        call.tokens = reply.tokens
        if body.get("stream"):
            return await self.send_stream(request, call, self._pieces(body, call, reply, fault), fault)
        call.tokens.reasoning = len(reply.thinking)
        call.tokens.output = len(reply.words) + len(reply.thinking) + len(reply.calls)
        return await self.send_whole(request, call, _message(body, call, reply, fault), fault)

    async def _pieces(self, body: Any, call: Call, reply: Reply, fault: Fault | None) -> AsyncIterator[Piece]:
        def event(kind: str, name: str, tokens: int = 0, **fields: Any) -> Piece:
            return Piece(kind, f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode(), tokens)

        start = {**_message(body, call, reply, fault), "content": [], "stop_reason": None}
        told = fault is None or fault.kind != "no_usage"
        if told:
            start["usage"] = {**_input_usage(call), "output_tokens": 1}
        yield event("role", "message_start", message=start)
        yield event("role", "ping")
        call.tokens.reasoning = len(reply.thinking)
        for index, block in enumerate(_content(call, reply)):
            kind = block["type"]
            empty = {"text": "", "thinking": "", "signature": "", "input": {}}
            opening = {key: empty.get(key, value) for key, value in block.items()}
            yield event("role", "content_block_start", index=index, content_block=opening)
            for delta, tokens in _deltas(block, reply, kind):
                yield event("content", "content_block_delta", tokens, index=index, delta=delta)
            yield event("role", "content_block_stop", index=index)
        final = event(
            "finish",
            "message_delta",
            delta={"stop_reason": _STOPS[reply.finish], "stop_sequence": None},
            **({"usage": _output_usage(call)} if told else {}),
        )
        final.tells_usage = told
        yield final
        yield event("done", "message_stop")


def check_messages(body: Any, version: str) -> None:
    """Raises: Refused, as the real service would."""
    if not isinstance(body, dict):
        raise Refused(400, "The request body is not valid JSON.")
    if mistake := VERSIONS[version].first_mistake(body):
        raise _refused(mistake)
    for at, message in enumerate(body["messages"]):
        if mistake := _MESSAGE.first_mistake(message):
            raise _refused(Mistake(mistake.kind, f"messages.{at}.{mistake.path}", mistake.message))
        if message["role"] not in _ALLOWED:
            raise Refused(
                400,
                f'messages: Unexpected role "{message["role"]}". The Messages API accepts a top-level `system` parameter, '
                'not "system" as an input message role.',
            )
        _check_blocks(at, message)
    _check_tool_order(body["messages"])
    _check_last(body["messages"][-1])
    if "temperature" in body and "top_p" in body:
        raise Refused(400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    if body.get("tool_choice") and not body.get("tools"):
        raise Refused(400, "tool_choice: may only be specified while providing tools.")
    _check_schema(body)


def _check_blocks(at: int, message: Any) -> None:
    for number, block in enumerate(blocks_of(message)):
        path = f"messages.{at}.content.{number}"
        kind = block.get("type")
        if kind not in _BLOCKS or kind not in _ALLOWED[message["role"]]:
            raise Refused(
                400, f"{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags."
            )
        if mistake := _BLOCKS[kind].first_mistake(block):
            if mistake.kind == "empty":
                raise Refused(400, "messages: text content blocks must be non-empty")
            raise _refused(Mistake(mistake.kind, f"{path}.{kind}.{mistake.path}", mistake.message))


def _check_tool_order(messages: list[Any]) -> None:
    """Results answer the calls of the message before, all of them, and stand before anything else."""
    merged: list[Any] = []
    for message in messages:  # neighbours of one role are one turn
        if merged and merged[-1][0] == message["role"]:
            merged[-1][1].extend(blocks_of(message))
        else:
            merged.append((message["role"], list(blocks_of(message))))
    waiting: set[str] = set()
    for at, (role, blocks) in enumerate(merged):
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        for result in results:
            if result not in waiting:
                raise Refused(
                    400,
                    f"messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {result}. Each "
                    "`tool_result` block must have a corresponding `tool_use` block in the previous message.",
                )
        missing = waiting - set(results)
        if role == "user" and (missing or any(block["type"] != "tool_result" for block in blocks[: len(results)])):
            raise Refused(
                400,
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(sorted(missing or waiting))}.",
            )
        waiting = {block["id"] for block in blocks if block["type"] == "tool_use"}


def _check_last(message: Any) -> None:
    last = blocks_of(message)[-1]
    if message["role"] == "assistant" and last.get("type") == "text" and last["text"] != last["text"].rstrip():
        raise Refused(400, "messages: final assistant content cannot end with trailing whitespace")


def _check_schema(body: Any) -> None:
    given = (body.get("output_config") or {}).get("format") or {}

    def walk(schema: Any) -> None:
        if isinstance(schema, list):
            for inner in schema:
                walk(inner)
        if not isinstance(schema, dict):
            return
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise Refused(400, "output_config.format.schema: For 'object' type, 'additionalProperties' must be false")
        refused = sorted(REFUSED_IN_SCHEMAS & set(schema))
        if refused:
            raise Refused(400, f"output_config.format.schema: property '{refused[0]}' is not supported")
        for key, inner in schema.items():
            if key in ("properties", "$defs"):
                walk(list(inner.values()))
            elif key in ("items", "anyOf", "allOf"):
                walk(inner)

    walk(given.get("schema"))


def _refused(mistake: Mistake) -> Refused:
    path = mistake.path.replace("[", ".").replace("]", "")
    match mistake.kind:
        case "unknown":
            return Refused(400, f"{path}: Extra inputs are not permitted")
        case "missing":
            return Refused(400, f"{path}: Field required")
        case "empty":
            return Refused(400, f"{path}: at least one item is required")
        case _:
            return Refused(400, f"{path}: {mistake.message}")


def blocks_of(message: Any) -> list[Any]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _prompt(body: Any) -> Prompt:
    messages = body["messages"]
    system = body.get("system") or ""
    texts = [system] if isinstance(system, str) else [block["text"] for block in system]
    images = 0
    last_user, results = "", None
    for message in messages:
        for block in blocks_of(message):
            texts.append(_block_text(block))
            images += block["type"] == "image"
        if message["role"] == "user":
            last_user = " ".join(block["text"] for block in blocks_of(message) if block["type"] == "text") or last_user
    told = [_block_text(block) for block in blocks_of(messages[-1]) if block["type"] == "tool_result"]
    if told and not any(block["type"] == "text" for block in blocks_of(messages[-1])):
        results = " ".join(told)
    choice = body.get("tool_choice") or {"type": "auto"}
    return Prompt(
        last_user_text=last_user,
        words=count_words(*texts) + IMAGE_TOKENS * images,
        after_tools=results,
        answers=sum(message["role"] == "assistant" for message in messages),
        tools=[tool["name"] for tool in body.get("tools", ())],
        must_call={"any": "*", "tool": choice.get("name")}.get(choice["type"]),
        may_call=choice["type"] != "none",
        limit=body["max_tokens"],
        stops=body.get("stop_sequences", ()),
        schema=((body.get("output_config") or {}).get("format") or {}).get("schema"),
    )


def _block_text(block: Any) -> str:
    if block["type"] == "tool_result":
        content = block.get("content", "")
        return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    return block.get("text", "")


def _content(call: Call, reply: Reply) -> list[Any]:
    blocks: list[Any] = []
    if reply.thinking:
        blocks.append({"type": "thinking", "thinking": "".join(reply.thinking), "signature": f"sig-{call.number}"})
    if reply.words:
        blocks.append({"type": "text", "text": reply.text})
    for number, (name, arguments) in enumerate(reply.calls):
        blocks.append({"type": "tool_use", "id": f"toolu_{call.number}_{number}", "name": name, "input": arguments})
    return blocks


def _deltas(block: Any, reply: Reply, kind: str) -> list[tuple[Any, int]]:
    if kind == "text":
        return [({"type": "text_delta", "text": word}, 1) for word in reply.words]
    if kind == "thinking":
        words = [({"type": "thinking_delta", "thinking": word}, 1) for word in reply.thinking]
        return [*words, ({"type": "signature_delta", "signature": block["signature"]}, 0)]
    text = json.dumps(block["input"]) if block["input"] else ""  # no fragments for a call without arguments
    parts = [({"type": "input_json_delta", "partial_json": text[at : at + 8]}, 0) for at in range(0, len(text), 8)]
    return [({"type": "input_json_delta", "partial_json": ""}, 1), *parts]


def _input_usage(call: Call) -> Any:
    tokens = call.tokens
    return {
        "input_tokens": tokens.input,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation_input_tokens": tokens.cache_write + tokens.cache_write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
    }


def _output_usage(call: Call) -> Any:
    details = {"thinking_tokens": call.tokens.reasoning}
    return {"output_tokens": call.tokens.output, "output_tokens_details": details}


def _message(body: Any, call: Call, reply: Reply, fault: Fault | None) -> Any:
    message = {
        "id": f"msg_{call.number}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": _content(call, reply),
        "stop_reason": _STOPS[reply.finish],
        "stop_sequence": None,
    }
    if fault is None or fault.kind != "no_usage":
        message["usage"] = {**_input_usage(call), **_output_usage(call)}
    return message
