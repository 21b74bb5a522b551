"""Servers that speak OpenAI's dialect nearly: bytes as they were seen or feared, on a plain socket, each with its right answer and row."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from upstreams.book import PRICES, SCOPE, MemoryBook, chat, route

from engine.ledger import CostSource
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.failover import Failover
from providers.http import HttpClient
from providers.pricing import PriceBook
from providers.provider import ProviderConfig, Timeouts
from providers.registry import build_providers
from providers.walk import FailoverPolicy
from providers.wording import TokenCounter, Wording

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
COST = 10_000_000 + 4 * 2_000_000
MESSAGE = {"role": "assistant", "content": "well done"}


def whole(finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": MESSAGE, "finish_reason": finish, **more}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}


def events(*deltas: Any, finish: str = "stop") -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    return b"".join(b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n" for choice in choices)


@asynccontextmanager
async def answering(body: Any, status: str, headers: str) -> AsyncGenerator[str, None]:
    """The address of a server that answers every request with these bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(raw)}\r\n{headers}\r\n".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(asked.split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.write(head + raw)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def ask(
    body: Any,
    *,
    stream: bool = False,
    status: str = "200 OK",
    headers: str = "",
    dialect: Literal["openai", "anthropic"] = "openai",
) -> tuple[list[dict[str, Any]], ProviderError | None, MemoryBook]:
    """What came of it: the bodies (one, or a chunk each), the failure, and the rows."""
    book = MemoryBook()

    async def main() -> tuple[list[dict[str, Any]], ProviderError | None]:
        http, failover, bodies = HttpClient(), Failover(PriceBook()), list[dict[str, Any]]()
        once = FailoverPolicy(retries_per_target=0)
        async with answering(body, status, headers) as url:
            config = ProviderConfig("p", dialect, url, prices=PRICES, timeouts=Timeouts(2, 2, 2, 5))
            where = route((build_providers([config], http)["p"], "m"))
            try:
                if stream:
                    async with await failover.stream(where, chat("x"), scope=SCOPE, book=book, policy=once) as chunks:
                        async for chunk in chunks:
                            bodies.append(chunk.body)
                else:
                    done = await failover.complete(where, chat("x"), scope=SCOPE, book=book, policy=once)
                    bodies.append(done.answer.body)
            except ProviderError as error:
                return bodies, error
            finally:
                await http.close()
        return bodies, None

    bodies, failed = asyncio.run(main())
    return bodies, failed, book


def told_text(bodies: list[dict[str, Any]]) -> str:
    """The text of an answer, whole or in chunks."""
    return "".join(told.get("content") or "" for told in messages_in(bodies))


def messages_in(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages or their deltas."""
    choices = [choice for body in bodies for choice in body["choices"]]
    return [choice.get("message") or choice.get("delta") for choice in choices]


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (whole(), "201 Created", ""),
        (b"\xef\xbb\xbf" + json.dumps(whole()).encode(), "200 OK", ""),
        (whole(), "200 OK", f"set-cookie: a={'b' * 100_000}\r\n"),
        (whole(), "200 OK", "x: y\r\n" * 500),
    ],
    ids=["created", "byte-order-mark", "large-header", "many-headers"],
)
def test_a_good_answer_in_strange_clothes_is_a_good_answer(body: Any, status: str, headers: str) -> None:
    bodies, failed, book = ask(body, status=status, headers=headers)
    assert failed is None and told_text(bodies) == "well done"
    assert [(row.success, row.cost_picousd) for row in book.rows] == [(True, COST)]


def test_a_server_that_does_not_stream_is_told_in_chunks() -> None:
    bodies, failed, book = ask(whole(), stream=True)
    assert failed is None and told_text(bodies) == "well done"
    assert [choice["finish_reason"] for body in bodies for choice in body["choices"]][-1] == "stop"
    assert [(row.success, row.cost_picousd) for row in book.rows] == [(True, COST)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "slow down", "code": 429}}, ErrorClass.RATE_LIMIT),
        ([{"error": {"message": "slow down", "code": 429, "status": "RESOURCE_EXHAUSTED"}}], ErrorClass.RATE_LIMIT),
        (whole("error", error={"code": 502, "message": "broke"}), ErrorClass.SERVER_ERROR),
        (whole(None, message=None), ErrorClass.SERVER_ERROR),
    ],
    ids=["error", "error-in-a-list", "finish-reason-error", "no-message"],
)
def test_a_200_that_is_none_is_a_failure(body: Any, expected: ErrorClass, stream: bool) -> None:
    bodies, failed, book = ask(body, stream=stream)
    assert bodies == [] and failed is not None
    assert failed.error_class is expected
    assert [row.success for row in book.rows] == [False]


def test_a_redirect_is_not_followed() -> None:
    """It would carry the key to another host."""
    taken: list[bytes] = []

    async def main() -> ProviderError:
        async def steal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.append(await reader.read(100))
            writer.close()

        http = HttpClient()
        async with await asyncio.start_server(steal, "127.0.0.1", 0) as thief:
            elsewhere = f"location: http://127.0.0.1:{thief.sockets[0].getsockname()[1]}/v1\r\n"
            async with answering(b"", "307 Temporary Redirect", elsewhere) as url:
                provider = build_providers([ProviderConfig("p", "openai", url, "secret")], http)["p"]
                with pytest.raises(ProviderError) as caught:
                    await provider.chat("m", chat("x"))
        await http.close()
        return caught.value

    assert asyncio.run(main()).status == 307 and not taken


def test_a_204_may_have_cost_something() -> None:
    _, failed, book = ask(b"", status="204 No Content")
    assert failed is not None and book.rows[0].cost_source is CostSource.UNKNOWN


def test_a_choice_that_ends_with_an_error_is_no_clean_end() -> None:
    bodies, failed, book = ask(events({"content": "half"}, finish="error") + DONE, stream=True)
    assert told_text(bodies) == "half" and failed is not None and failed.error_class is ErrorClass.SERVER_ERROR
    assert [(row.success, row.cost_source) for row in book.rows] == [(False, CostSource.ESTIMATED)]


def test_a_message_that_ends_without_a_stop_reason_is_not_whole() -> None:
    """`message_stop` alone says nothing: the reason is in the `message_delta` before it."""
    block = {"type": "text", "text": ""}
    told = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half"}},
        {"type": "message_stop"},
    ]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    bodies, failed, book = ask(body, stream=True, dialect="anthropic")
    assert told_text(bodies) == "half" and failed is not None and not book.rows[0].success


@pytest.mark.parametrize("stream", [False, True])
def test_content_in_parts_is_text(stream: bool) -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "well "},
        {"type": "text", "text": "done"},
    ]
    said = {"role": "assistant", "content": parts}
    bodies, failed, _ = ask(events(said) + DONE if stream else whole(message=said), stream=stream)
    assert failed is None and told_text(bodies) == "well done"
    [thought] = [told["reasoning_content"] for told in messages_in(bodies) if told.get("reasoning_content")]
    assert thought == "hm"


def test_half_a_surrogate_pair_breaks_no_answer() -> None:
    """JSON all the same: servers in JavaScript cut an emoji in two where they cut a text by length."""
    bodies, failed, _ = ask(events({"content": "a\ud83d"}, {"content": "\ude00 b"}) + DONE, stream=True)
    assert failed is None and told_text(bodies) == "a\ufffd\ufffd b"
    bodies, failed, _ = ask(whole(message={"role": "assistant", "content": "a\ud83d \U0001f600"}))
    assert failed is None and told_text(bodies) == "a\ufffd \U0001f600"
    for nonsense in (b'{"choices": NaN, "x": "\\ud83d"}', b'{"x": "\\ud83d"'):
        assert ask(nonsense)[1] is not None


def piece(**fields: Any) -> dict[str, Any]:
    return {"tool_calls": [fields]}


CALLS = {
    "no-index": [
        piece(id="a", type="function", function={"name": "f", "arguments": '{"x":'}),
        piece(function={"arguments": "1}"}),
        piece(id="b", type="function", function={"name": "g", "arguments": '{"y":2}'}),
    ],
    "no-index-at-once": [
        {
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"y":2}'}},
            ]
        }
    ],
    "one-index-for-all": [
        piece(index=0, id="a", type="function", function={"name": "f", "arguments": '{"x":1}'}),
        piece(index=0, id="b", type="function", function={"name": "g", "arguments": '{"y":'}),
        piece(index=0, function={"arguments": "2}"}),
    ],
    "said-again-with-every-piece": [
        piece(index=0, id="a", type="function", function={"name": "f", "arguments": '{"x"'}),
        piece(index=0, id="a", type="function", function={"name": "f", "arguments": ":1}"}),
        piece(index=1, id="b", type="function", function={"name": "g", "arguments": '{"y"'}),
        piece(index=1, id="other", type="function", function={"arguments": ":2}"}),
    ],
    "arguments-as-objects": [
        piece(index=0, id="a", function={"name": "f", "arguments": {"x": 1}}),
        piece(index=1, id="b", function={"name": "g", "arguments": {"y": 2}}),
    ],
    "no-ids": [
        piece(index=0, function={"name": "f", "arguments": '{"x":1}'}),
        piece(index=1, function={"name": "g", "arguments": '{"y":2}'}),
    ],
    "last-first": [
        piece(index=1, id="b", type="function", function={"name": "g", "arguments": '{"y":2}'}),
        piece(index=0, id="a", type="function", function={"name": "f", "arguments": '{"x":1}'}),
    ],
}


@pytest.mark.parametrize("deltas", CALLS.values(), ids=CALLS.keys())
def test_pieces_of_tool_calls_that_are_not_in_order_are_put_in_order(deltas: list[Any]) -> None:
    bodies, failed, _ = ask(events(*deltas, finish="tool_calls") + DONE, stream=True)
    assert failed is None
    calls: dict[int, dict[str, str]] = {}
    for body in bodies:
        for each in (each for choice in body["choices"] for each in choice["delta"].get("tool_calls", [])):
            call = calls.setdefault(
                each["index"], {"id": "", "type": each.get("type", ""), "name": "", "arguments": ""}
            )
            call["id"] += each.get("id") or ""  # as OpenAI's client joins them
            for key in ("name", "arguments"):
                call[key] += each["function"].get(key) or ""
    found = [calls[index] for index in sorted(calls)]
    assert [(call["type"], call["name"], json.loads(call["arguments"])) for call in found] == [
        ("function", "f", {"x": 1}),
        ("function", "g", {"y": 2}),
    ]
    ids = [call["id"] for call in found]
    assert ids == ["a", "b"] or (all(identity.startswith("call_") for identity in ids) and len(set(ids)) == 2)


def test_openai_counts_the_tokens_of_a_responses_prompt() -> None:
    async def count(answer: Any) -> int:
        http = HttpClient()
        try:
            async with answering(answer, "200 OK", "") as url:
                provider = build_providers([ProviderConfig("p", "openai", url)], http)["p"]
                assert isinstance(provider, TokenCounter)
                return await provider.count_tokens("m", Wording({"input": "x", "stream": True}, native=True))
        finally:
            await http.close()

    assert asyncio.run(count({"object": "response.input_tokens", "input_tokens": 7})) == 7
    with pytest.raises(ProviderError) as caught:
        asyncio.run(count(whole()))  # of a server that answers every path alike
    assert caught.value.status == 501  # estimated then


def test_calls_of_a_whole_answer_are_completed_too() -> None:
    calls = [{"function": {"name": "f", "arguments": {"x": 1}}}]
    [body], failed, _ = ask(whole("tool_calls", message={"role": "assistant", "content": None, "tool_calls": calls}))
    [call] = body["choices"][0]["message"]["tool_calls"]
    assert failed is None and call["id"].startswith("call_") and call["type"] == "function"
    assert json.loads(call["function"]["arguments"]) == {"x": 1}
