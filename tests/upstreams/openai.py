"""A strict stand-in for OpenAI: `/v1/chat/completions`, `/v1/embeddings`, `/v1/models`."""

import base64
import hashlib
import json
import re
import struct
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from aiohttp import web
from upstreams.answers import IMAGE_TOKENS, Prompt, Reply, count_words, reply_to
from upstreams.checks import Checker, Mistake
from upstreams.control import Call, Fault
from upstreams.openai_schema import CHAT, EMBEDDINGS, MESSAGES
from upstreams.server import Handler, Piece, Refused, Upstream

_NEW_LIMIT = re.compile(r"^(o\d|gpt-[5-9])")
_CHAT = Checker(CHAT)
_EMBEDDINGS = Checker(EMBEDDINGS)
_MESSAGES = {role: Checker(schema) for role, schema in MESSAGES.items()}
_CREATED = 1_760_000_000


class OpenAIUpstream(Upstream):
    """`base_url` ends in /v1."""

    default_models = ("gpt-6-luna", "gpt-6-sol", "gpt-4.1-mini", "text-embedding-3-small")
    base_path = "/v1"

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("POST", "/v1/chat/completions", partial(self.serve, answer=self._chat)),
            ("POST", "/v1/embeddings", partial(self.serve, answer=self._embeddings)),
            ("GET", "/v1/models", self._list),
        ]

    def error_body(self, status: int, message: str, **fields: Any) -> Any:
        kind = fields.get("type") or ("server_error" if status >= 500 else "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": fields.get("param"), "code": fields.get("code")}}

    def _authorize(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "")
        if not given:
            raise Refused(401, "You didn't provide an API key.")
        if given != f"Bearer {self.key}":
            raise Refused(401, "Incorrect API key provided.", code="invalid_api_key")

    async def _list(self, request: web.Request) -> web.Response:
        try:
            self._authorize(request)
        except Refused as refused:
            return web.json_response(self.error_body(401, refused.message, **refused.fields), status=401)
        rows = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "system"} for name in self.models]
        return web.json_response({"object": "list", "data": rows})

    # Chat.

    async def _chat(self, request: web.Request, body: Any, call: Call, fault: Fault | None) -> web.StreamResponse:
        self._authorize(request)
        check_chat(body)
        self._know(body["model"])
        prompt = _prompt(body)
        if prompt.words > self.context:
            raise Refused(
                400,
                f"This model's maximum context length is {self.context} tokens. However, your messages resulted in "
                f"{prompt.words} tokens. Please reduce the length of the messages.",
                param="messages",
                code="context_length_exceeded",
            )
        reply = reply_to(prompt)
        call.tokens = reply.tokens
        call.tokens.input += call.tokens.cache_write_1h  # OpenAI tells no such thing
        call.tokens.cache_write_1h = 0
        if body.get("stream"):
            return await self.send_stream(request, call, self._pieces(body, call, reply), fault)
        choices = body.get("n") or 1
        call.tokens.reasoning = len(reply.thinking) * choices
        call.tokens.output = _output_tokens(reply) * choices
        return await self.send_whole(request, call, _completion(body, call, reply, told=not _hides_usage(fault)), fault)

    def _know(self, model: str) -> None:
        if model not in self.models:
            raise Refused(
                404,
                f"The model `{model}` does not exist or you do not have access to it.",
                code="model_not_found",
            )

    async def _pieces(self, body: Any, call: Call, reply: Reply) -> AsyncIterator[Piece]:
        wants_usage = (body.get("stream_options") or {}).get("include_usage") is True
        count = body.get("n") or 1

        def chunk(kind: str, choices: list[Any], tokens: int = 0, **more: Any) -> Piece:
            data: dict[str, Any] = {
                "id": f"chatcmpl-{call.number}",
                "object": "chat.completion.chunk",
                "created": _CREATED,
                "model": body["model"],
                "service_tier": "default",
                "system_fingerprint": "fp_test",
                "choices": choices,
            }
            if wants_usage:
                data["usage"] = None
            data.update(more)
            return Piece(kind, f"data: {json.dumps(data)}\n\n".encode(), tokens)

        def choice(index: int, delta: Any, finish: str | None = None) -> list[Any]:
            return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]

        for index in range(count):
            yield chunk("role", choice(index, {"role": "assistant", "content": "", "refusal": None}))
        for index in range(count):
            call.tokens.reasoning += len(reply.thinking)
            call.tokens.output += len(reply.thinking)
            for word in reply.words:
                yield chunk("content", choice(index, {"content": word}), 1)
            for number, (name, arguments) in enumerate(reply.calls):
                text = json.dumps(arguments)
                function = {"name": name, "arguments": ""}
                start = {"index": number, "id": _call_id(call, number), "type": "function", "function": function}
                yield chunk("content", choice(index, {"tool_calls": [start]}), 1)
                for at in range(0, len(text), 8):
                    part = {"index": number, "function": {"arguments": text[at : at + 8]}}
                    yield chunk("content", choice(index, {"tool_calls": [part]}))
            yield chunk("finish" if index == count - 1 else "ended", choice(index, {}, reply.finish))
        if wants_usage:
            piece = chunk("usage", [], usage=_usage(call))
            piece.tells_usage = True
            yield piece
        yield Piece("done", b"data: [DONE]\n\n")

    # Embeddings.

    async def _embeddings(self, request: web.Request, body: Any, call: Call, fault: Fault | None) -> web.StreamResponse:
        self._authorize(request)
        if mistake := _EMBEDDINGS.first_mistake(body):
            raise _refused(mistake)
        self._know(body["model"])
        given = body["input"]
        texts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        size = body.get("dimensions", 8)
        rows = [
            {"object": "embedding", "index": at, "embedding": _vector(text, size, body.get("encoding_format", "float"))}
            for at, text in enumerate(texts)
        ]
        call.tokens.input = sum(count_words(text) if isinstance(text, str) else len(text) for text in texts)
        usage = {"prompt_tokens": call.tokens.input, "total_tokens": call.tokens.input}
        told = {} if _hides_usage(fault) else {"usage": usage}
        answer = {"object": "list", "data": rows, "model": body["model"], **told}
        return await self.send_whole(request, call, answer, fault)


def check_chat(body: Any) -> None:
    """Raises: Refused, as the real service would."""
    if not isinstance(body, dict):
        raise Refused(400, "We could not parse the JSON body of your request.")
    if mistake := _CHAT.first_mistake(body):
        raise _refused(mistake)
    for at, message in enumerate(body["messages"]):
        checker = _MESSAGES.get(message.get("role", ""))
        if checker is None:
            raise Refused(
                400, f"Invalid value: '{message.get('role')}'.", param=f"messages[{at}].role", code="invalid_value"
            )
        if mistake := checker.first_mistake(message):
            raise _refused(Mistake(mistake.kind, f"messages[{at}].{mistake.path}", mistake.message, mistake.name))
    _check_tool_order(body["messages"])
    _check_combinations(body)


def _check_tool_order(messages: list[Any]) -> None:
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise Refused(
                    400,
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                    param=f"messages.[{at}].role",
                )
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            break
        open_calls = {tool_call["id"] for tool_call in message.get("tool_calls", ())}
    if open_calls:
        raise Refused(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
            f"The following tool_call_ids did not have response messages: {', '.join(sorted(open_calls))}",
            param="messages",
        )


def _check_combinations(body: Any) -> None:
    if body.get("stream_options") is not None and not body.get("stream"):
        raise Refused(
            400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if body.get("max_tokens") is not None and _NEW_LIMIT.match(body["model"]):
        raise Refused(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise Refused(400, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    for key in ("tool_choice", "parallel_tool_calls"):
        if key in body and not body.get("tools"):
            raise Refused(
                400, f"Invalid value for '{key}': '{key}' is only allowed when 'tools' are specified.", param=key
            )
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise Refused(
            400, "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs"
        )


def _refused(mistake: Mistake) -> Refused:
    match mistake.kind:
        case "unknown":
            return Refused(400, f"Unrecognized request argument supplied: {mistake.name}")
        case "missing":
            return Refused(
                400,
                f"Missing required parameter: '{mistake.path}'.",
                param=mistake.path,
                code="missing_required_parameter",
            )
        case "type":
            return Refused(
                400, f"Invalid type for '{mistake.path}': {mistake.message}.", param=mistake.path, code="invalid_type"
            )
        case "empty":
            return Refused(400, f"Invalid '{mistake.path}': empty array.", param=mistake.path, code="empty_array")
        case _:
            if "image_url" in mistake.path:
                return Refused(400, "Invalid image URL.", param=mistake.path, code="invalid_image_url")
            return Refused(
                400, f"Invalid value for '{mistake.path}': {mistake.message}.", param=mistake.path, code="invalid_value"
            )


def _prompt(body: Any) -> Prompt:
    messages = body["messages"]
    users = [message for message in messages if message["role"] == "user"]
    tool_texts = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        tool_texts.insert(0, _text(message["content"]))
    choice = body.get("tool_choice", "auto")
    offered = [tool["function"]["name"] for tool in body.get("tools", ()) if tool["type"] == "function"]
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        allowed = [tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]]
        offered, choice = [name for name in offered if name in allowed], choice["allowed_tools"]["mode"]
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    stops = body.get("stop") or []
    wanted = body.get("response_format") or {}
    return Prompt(
        last_user_text=_text(users[-1]["content"]) if users else "",
        words=sum(_words(message.get("content")) for message in messages),
        after_tools=" ".join(tool_texts) if tool_texts else None,
        answers=sum(message["role"] == "assistant" for message in messages),
        tools=offered,
        must_call=named or ("*" if choice == "required" else None),
        may_call=choice != "none",
        limit=body.get("max_completion_tokens") or body.get("max_tokens"),
        stops=[stops] if isinstance(stops, str) else stops,
        schema={"json_schema": wanted.get("json_schema", {}).get("schema"), "json_object": {"type": "object"}}.get(
            wanted.get("type", "")
        ),
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def _words(content: Any) -> int:
    images = 0 if isinstance(content, str) else sum(part["type"] == "image_url" for part in content or ())
    return count_words(_text(content)) + IMAGE_TOKENS * images


def _completion(body: Any, call: Call, reply: Reply, *, told: bool) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None, "annotations": []}
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": _call_id(call, number),
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given)},
            }
            for number, (name, given) in enumerate(reply.calls)
        ]
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": reply.finish}
        for index in range(body.get("n") or 1)
    ]
    answer = {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": body["model"],
        "choices": choices,
        "service_tier": "default",
        "system_fingerprint": "fp_test",
    }
    return {**answer, "usage": _usage(call)} if told else answer


def _hides_usage(fault: Fault | None) -> bool:
    return fault is not None and fault.kind == "no_usage"


def _output_tokens(reply: Reply) -> int:
    return len(reply.words) + len(reply.thinking) + len(reply.calls)


def _usage(call: Call) -> Any:
    tokens = call.tokens
    prompt = tokens.input + tokens.cache_read + tokens.cache_write
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens.output,
        "total_tokens": prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def _call_id(call: Call, number: int) -> str:
    return f"call_{call.number}_{number}"


def _vector(text: Any, size: int, encoding: str) -> Any:
    raw = hashlib.shake_256(json.dumps(text).encode()).digest(size * 2)
    vector = [value / 32768 for value in struct.unpack(f"<{size}h", raw)]
    return vector if encoding == "float" else base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
