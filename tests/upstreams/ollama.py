"""A strict stand-in for Ollama: `/api/chat`, `/api/embed`, `/api/tags`, `/api/version`."""

import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from aiohttp import web
from upstreams.answers import IMAGE_TOKENS, Prompt, Reply, count_words, reply_to
from upstreams.checks import ANY_OBJECT, FLAG, TEXT, Checker, array, obj
from upstreams.control import Call, Fault
from upstreams.server import Handler, Piece, Refused, Upstream

_CREATED = "2026-01-01T00:00:00Z"
# Ollama ignores keys that it does not know; what it decodes into a Go struct has to have that type.
_TOOL_CALL = obj(
    {"function": obj({"name": TEXT, "arguments": ANY_OBJECT}, "name", open_ended=True)}, "function", open_ended=True
)
_MESSAGE = obj(
    {
        "role": TEXT,
        "content": TEXT,
        "thinking": TEXT,
        "images": array(TEXT),
        "tool_calls": array(_TOOL_CALL),
        "tool_name": TEXT,
        "tool_call_id": TEXT,
    },
    "role",
    open_ended=True,
)
_CHAT = Checker(
    obj(
        {
            "model": TEXT,
            "messages": array(_MESSAGE),
            "stream": FLAG,
            "format": {"anyOf": [TEXT, ANY_OBJECT]},
            "tools": array(obj({"type": TEXT, "function": ANY_OBJECT}, "type", "function", open_ended=True)),
            "think": {"anyOf": [FLAG, TEXT]},
            "options": ANY_OBJECT,
        },
        "model",
        open_ended=True,
    )
)
# Options are set by name on a struct; one of the wrong type is told when the model is about to be loaded, as its own failure.
_OPTION_KINDS: dict[str, type | tuple[type, ...]] = {
    "num_predict": (int, float), "num_ctx": (int, float), "seed": (int, float), "top_k": (int, float),
    "temperature": (int, float), "top_p": (int, float), "min_p": (int, float), "presence_penalty": (int, float),
    "frequency_penalty": (int, float), "repeat_penalty": (int, float), "stop": list,
}  # fmt: skip
_OPTION_WORDS = {"stop": "array", **dict.fromkeys(("num_predict", "num_ctx", "seed", "top_k"), "integer")}
_ROLES = ("system", "user", "assistant", "tool")


class OllamaUpstream(Upstream):
    """`base_url` has no path. No key is asked for."""

    default_models = ("llama3.2:1b", "qwen2.5:32b-instruct", "gpt-oss:20b")
    stream_type = "application/x-ndjson"
    malformed = b'{"model": "x", "mess\n'
    thinkers = ("gpt-oss:20b",)

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("POST", "/api/chat", partial(self.serve, answer=self._chat)),
            ("POST", "/api/embed", partial(self.serve, answer=self._embed)),
            ("GET", "/api/tags", self._tags),
            ("GET", "/api/version", self._about),
        ]

    def error_body(self, status: int, message: str, **fields: Any) -> Any:
        return {"error": message}

    def error_piece(self, fault: Fault) -> bytes:
        return json.dumps({"error": fault.message}).encode() + b"\n"

    async def _about(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.13.0"})

    async def _tags(self, _: web.Request) -> web.Response:
        rows = [
            {"name": name, "model": name, "modified_at": _CREATED, "size": 1, "details": {}} for name in self.models
        ]
        return web.json_response({"models": rows})

    def _know(self, body: Any) -> None:
        name = body["model"]
        if name not in self.models and f"{name}:latest" not in self.models:
            raise Refused(404, f"model '{name}' not found")

    async def _chat(self, request: web.Request, body: Any, call: Call, fault: Fault | None) -> web.StreamResponse:
        check_chat(body)
        self._know(body)
        check_options(body.get("options", {}))
        if body.get("think") and body["model"] not in self.thinkers:
            raise Refused(400, f'"{body["model"]}" does not support thinking')
        reply = reply_to(_prompt(body))
        call.tokens = reply.tokens
        told = call.tokens
        told.input += told.cache_read + told.cache_write + told.cache_write_1h  # Ollama does not tell them apart
        told.cache_read = told.cache_write = told.cache_write_1h = 0
        if body.get("stream", True):
            return await self.send_stream(request, call, self._pieces(body, call, reply, fault), fault)
        call.tokens.output = len(reply.words) + len(reply.thinking) + len(reply.calls)
        message: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.thinking:
            message["thinking"] = "".join(reply.thinking)
        if reply.calls:
            message["tool_calls"] = [_call(name, arguments) for name, arguments in reply.calls]
        return await self.send_whole(request, call, self._last(body, call, reply, fault, message), fault)

    async def _pieces(self, body: Any, call: Call, reply: Reply, fault: Fault | None) -> AsyncIterator[Piece]:
        def line(kind: str, tokens: int, **message: Any) -> Piece:
            told = {"role": "assistant", "content": "", **message}
            row = {"model": body["model"], "created_at": _CREATED, "message": told, "done": False}
            return Piece(kind, json.dumps(row).encode() + b"\n", tokens)

        for word in reply.thinking:
            yield line("content", 1, thinking=word)
        for word in reply.words:
            yield line("content", 1, content=word)
        for name, arguments in reply.calls:
            yield line("content", 1, tool_calls=[_call(name, arguments)])
        last = self._last(body, call, reply, fault, {"role": "assistant", "content": ""})
        told = fault is None or fault.kind != "no_usage"
        yield Piece("done", json.dumps(last).encode() + b"\n", tells_usage=told)

    def _last(self, body: Any, call: Call, reply: Reply, fault: Fault | None, message: Any) -> Any:
        last = {
            "model": body["model"],
            "created_at": _CREATED,
            "message": message,
            "done": True,
            "done_reason": "length" if reply.finish == "length" else "stop",
            "total_duration": 1_000_000,
        }
        if fault is None or fault.kind != "no_usage":
            counts = {"prompt_eval_count": call.tokens.input, "eval_count": call.tokens.output}
            last.update({name: count for name, count in counts.items() if count})  # a 0 is left out there
        return last

    async def _embed(self, request: web.Request, body: Any, call: Call, fault: Fault | None) -> web.StreamResponse:
        if not isinstance(body, dict) or not isinstance(body.get("input"), (str, list)):
            raise Refused(400, "invalid input type")
        self._know(body)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not all(isinstance(text, str) for text in texts):
            raise Refused(400, "invalid input type")
        size = body.get("dimensions", 8)
        call.tokens.input = count_words(*texts)
        vectors = [_vector(text, size) for text in texts]
        answer = {"model": body["model"], "embeddings": vectors, "prompt_eval_count": call.tokens.input}
        return await self.send_whole(request, call, answer, fault)


def check_chat(body: Any) -> None:
    """Raises: Refused, as the real service would."""
    if not isinstance(body, dict):
        raise Refused(400, "invalid character in JSON body")
    if mistake := _CHAT.first_mistake(body):
        if mistake.kind == "missing" and mistake.name == "model":
            raise Refused(400, "model is required")
        raise Refused(400, f"json: cannot unmarshal into Go struct field ChatRequest.{mistake.path}: {mistake.message}")
    for message in body.get("messages", ()):
        if message["role"] not in _ROLES:
            raise Refused(400, f"invalid role: {message['role']}, must be one of system, user, assistant, or tool")
        for image in message.get("images", ()):
            try:
                base64.b64decode(image, validate=True)
            except ValueError:
                raise Refused(400, "illegal base64 data at input byte 0") from None


def check_options(options: Any) -> None:
    """Raises: Refused, as the real service would: 500."""
    for name, value in options.items():
        kind = _OPTION_KINDS.get(name)
        if kind and value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise Refused(500, f'option "{name}" must be of type {_OPTION_WORDS.get(name, "float32")}')
    if not all(isinstance(text, str) for text in options.get("stop") or ()):
        raise Refused(500, 'option "stop" must be of an array of strings')


def _prompt(body: Any) -> Prompt:
    messages = body.get("messages", [])
    users = [message for message in messages if message["role"] == "user"]
    told: list[str] = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        told.insert(0, message["content"])
    given = body.get("format")
    options = body.get("options", {})
    return Prompt(
        last_user_text=users[-1]["content"] if users else "",
        words=sum(count_words(m.get("content", "")) + IMAGE_TOKENS * len(m.get("images", ())) for m in messages),
        after_tools=" ".join(told) if told else None,
        answers=sum(message["role"] == "assistant" for message in messages),
        tools=[tool["function"]["name"] for tool in body.get("tools", ())],
        limit=int(options["num_predict"]) if (options.get("num_predict") or -1) > 0 else None,
        stops=options.get("stop") or (),
        schema={"type": "object"} if given == "json" else given or None,
        thinks=body.get("think") not in (None, False),
    )


def _call(name: str, arguments: Any) -> Any:
    return {"function": {"name": name, "arguments": arguments}}


def _vector(text: str, size: int) -> list[float]:
    raw = hashlib.shake_256(text.encode()).digest(size * 2)
    return [value / 32768 for value in struct.unpack(f"<{size}h", raw)]
