"""Every way an upstream can fail, for each dialect: its class, its booking, and that half an answer is never a whole one."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
from upstreams.anthropic import AnthropicUpstream
from upstreams.book import PRICES, SCOPE, MemoryBook, chat, route
from upstreams.control import Fault
from upstreams.ollama import OllamaUpstream
from upstreams.openai import OpenAIUpstream
from upstreams.server import Upstream

from engine.ledger import CostSource
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.failover import Failover
from providers.http import HttpClient
from providers.pricing import PriceBook
from providers.provider import Chunk, Provider, ProviderConfig, Timeouts
from providers.registry import build_providers
from providers.walk import FailoverPolicy

KINDS: dict[str, tuple[type[Upstream], str]] = {
    "openai": (OpenAIUpstream, "gpt-6-luna"),
    "anthropic": (AnthropicUpstream, "claude-sonnet-5-5"),
    "ollama": (OllamaUpstream, "llama3.2:1b"),
}
QUICK = Timeouts(connect_s=2, first_content_s=0.3, idle_s=0.3, total_s=0.8)
ONCE = FailoverPolicy(retries_per_target=0)


def run(
    dialect: str, fault: Fault | None, use: Callable[[Provider, Upstream], Awaitable[Any]], timeouts: Timeouts = QUICK
) -> Any:
    kind, _ = KINDS[dialect]
    with kind() as up:

        async def main() -> Any:
            http = HttpClient()
            config = ProviderConfig("p", dialect, up.base_url, "test-key", prices=PRICES, timeouts=timeouts)  # type: ignore[arg-type]
            if fault is not None:
                up.control.script(fault)
            try:
                return await use(build_providers([config], http)["p"], up)
            finally:
                await http.close()

        return asyncio.run(main())


def failed(dialect: str, fault: Fault, *, stream: bool) -> tuple[ProviderError, MemoryBook, str]:
    """The error, the book and the text that came before it."""
    book = MemoryBook()
    texts: list[str] = []

    async def use(provider: Provider, up: Upstream) -> ProviderError:
        failover = Failover(PriceBook())
        where, body = route((provider, KINDS[dialect][1])), chat("a b c d e f")
        try:
            if stream:
                async with await failover.stream(where, body, scope=SCOPE, book=book, policy=ONCE) as chunks:
                    async for chunk in chunks:
                        texts.extend(c["delta"].get("content") or "" for c in chunk.body["choices"])
            else:
                await failover.complete(where, body, scope=SCOPE, book=book, policy=ONCE)
        except ProviderError as error:
            await failover.drain()
            assert up.control.count() == 1
            return error
        raise AssertionError(f"a failure was shown as an answer: {texts}")

    return run(dialect, fault, use), book, "".join(texts)


WHOLE = [
    (Fault("status", status=429, headers={"Retry-After": "3"}), ErrorClass.RATE_LIMIT, CostSource.FREE),
    (Fault("status", status=500), ErrorClass.SERVER_ERROR, CostSource.FREE),
    (Fault("status", status=503), ErrorClass.OVERLOADED, CostSource.FREE),
    (Fault("status", status=529), ErrorClass.OVERLOADED, CostSource.FREE),
    (Fault("status", status=401), ErrorClass.AUTH, CostSource.FREE),
    (Fault("status", status=400), ErrorClass.INVALID_REQUEST, CostSource.FREE),
    (Fault("status", status=408), ErrorClass.TIMEOUT, CostSource.FREE),
    (Fault("reset"), ErrorClass.CONNECTION, CostSource.UNKNOWN),
    (Fault("hang"), ErrorClass.TIMEOUT, CostSource.UNKNOWN),
    (Fault("not_json"), ErrorClass.SERVER_ERROR, CostSource.UNKNOWN),
    (Fault("error_in_200"), ErrorClass.SERVER_ERROR, CostSource.FREE),
    (Fault("cut"), ErrorClass.CONNECTION, CostSource.UNKNOWN),
    (Fault("stall"), ErrorClass.TIMEOUT, CostSource.UNKNOWN),
    (Fault("malformed"), ErrorClass.SERVER_ERROR, CostSource.UNKNOWN),
    (Fault("empty"), ErrorClass.SERVER_ERROR, CostSource.UNKNOWN),
]
BEFORE_CONTENT = [
    *((fault, kind) for fault, kind, _ in WHOLE[:9]),
    (Fault("not_json"), None),
    (Fault("empty"), ErrorClass.CONNECTION),
    (Fault("error_in_200"), None),
    (Fault("cut", after=0), ErrorClass.CONNECTION),
    (Fault("stall", after=0), ErrorClass.TIMEOUT),
    (Fault("malformed", after=0), ErrorClass.SERVER_ERROR),
    (Fault("error_in_stream", after=0, type="overloaded_error", code="overloaded_error"), None),
]
IN_MID_ANSWER = [
    (Fault("cut"), ErrorClass.CONNECTION),
    (Fault("stall"), ErrorClass.TIMEOUT),
    (Fault("malformed"), ErrorClass.SERVER_ERROR),
    (Fault("error_in_stream"), ErrorClass.SERVER_ERROR),
    (Fault("no_finish"), ErrorClass.CONNECTION),
    (Fault("slow", delay_s=0.25), ErrorClass.TIMEOUT),  # never idle for long, but past its total time
]


def name(case: Any) -> str | None:
    return f"{case.kind}{case.status if case.kind == 'status' else ''}" if isinstance(case, Fault) else None


@pytest.mark.parametrize("dialect", KINDS)
@pytest.mark.parametrize(("fault", "expected", "source"), WHOLE, ids=name)
def test_a_whole_answer_that_fails(dialect: str, fault: Fault, expected: ErrorClass, source: CostSource) -> None:
    error, book, _ = failed(dialect, fault, stream=False)
    assert error.error_class is expected
    [row] = book.rows
    assert (row.success, row.error_class, row.cost_source) == (False, expected, source)
    assert row.error and row.status_code == error.status == (fault.status if fault.kind == "status" else error.status)
    if fault.headers:
        assert error.retry_after_s == 3
    if fault.kind == "status":
        assert error.message == fault.message


@pytest.mark.parametrize("dialect", KINDS)
@pytest.mark.parametrize(("fault", "expected"), BEFORE_CONTENT, ids=name)
def test_a_stream_that_fails_before_its_first_content(dialect: str, fault: Fault, expected: ErrorClass | None) -> None:
    error, book, text = failed(dialect, fault, stream=True)
    assert text == ""
    assert expected is None or error.error_class is expected
    assert [row.success for row in book.rows] == [False]
    assert [info.error_class for info in error.attempts] == [error.error_class]


@pytest.mark.parametrize("dialect", KINDS)
@pytest.mark.parametrize(("fault", "expected"), IN_MID_ANSWER, ids=name)
def test_a_stream_that_fails_in_mid_answer_is_never_a_clean_end(
    dialect: str, fault: Fault, expected: ErrorClass
) -> None:
    error, book, text = failed(dialect, fault, stream=True)
    assert error.error_class is expected
    assert text.startswith("Answer ")
    [row] = book.rows
    assert not row.success and row.cost_source is CostSource.ESTIMATED and row.ttft_us is not None
    assert row.usage and row.usage.output > 0 and row.cost_picousd


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_role_only_chunks_do_not_stop_the_first_content_timer(dialect: str) -> None:
    error, book, _ = failed(dialect, Fault("role_then_stall"), stream=True)
    assert error.error_class is ErrorClass.TIMEOUT and "no content" in error.message
    assert book.rows[0].cost_source is CostSource.ESTIMATED  # it had begun


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("kind", ["no_done", "no_usage"])
def test_what_is_missing_after_the_answer_is_no_failure(dialect: str, kind: str) -> None:
    async def use(provider: Provider, up: Upstream) -> Any:
        book = MemoryBook()
        stream = await Failover(PriceBook()).stream(
            route((provider, KINDS[dialect][1])), chat("x y"), scope=SCOPE, book=book
        )
        async with stream:
            chunks = [chunk async for chunk in stream]
        return chunks, book.rows[0], stream

    chunks, row, stream = run(dialect, Fault(kind), use)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert row.success
    expected = CostSource.ESTIMATED if kind == "no_usage" else CostSource.PRICED
    assert row.cost_source is stream.cost_source is expected


def test_a_port_that_nobody_listens_on() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = ProviderConfig("p", "openai", f"http://127.0.0.1:{free.getsockname()[1]}/v1", prices=PRICES)

        async def main() -> tuple[ProviderError, MemoryBook]:
            http, book = HttpClient(), MemoryBook()
            where = route((build_providers([config], http)["p"], "m"))
            with pytest.raises(ProviderError) as caught:
                await Failover(PriceBook()).complete(where, chat("x"), scope=SCOPE, book=book, policy=ONCE)
            await http.close()
            return caught.value, book

        error, book = asyncio.run(main())
    assert error.error_class is ErrorClass.CONNECTION and book.rows[0].cost_picousd == 0


def test_a_context_that_is_too_long_has_its_class() -> None:
    for dialect in ("openai", "anthropic"):
        kind, model = KINDS[dialect]
        with ExitStack() as stack:
            up = stack.enter_context(kind(context=5))

            async def main(dialect: str = dialect, up: Upstream = up, model: str = model) -> ErrorClass:
                http = HttpClient()
                config = ProviderConfig("p", dialect, up.base_url, "test-key")  # type: ignore[arg-type]
                with pytest.raises(ProviderError) as caught:
                    await build_providers([config], http)["p"].chat(model, chat("a b c d e f"))
                await http.close()
                return caught.value.error_class

            assert asyncio.run(main()) is ErrorClass.CONTEXT_LENGTH


@pytest.mark.parametrize("dialect", KINDS)
def test_a_reader_who_leaves_cancels_the_upstream_and_is_booked(dialect: str) -> None:
    book = MemoryBook()

    async def use(provider: Provider, up: Upstream) -> None:
        stream = await Failover(PriceBook()).stream(
            route((provider, KINDS[dialect][1])), chat("[words 500]"), scope=SCOPE, book=book
        )
        async with stream:
            async for chunk in stream:
                if chunk.has_content:
                    break
        await asyncio.to_thread(up.control.wait, lambda control: control.calls[0].outcome == "client_gone")

    run(dialect, Fault("slow", delay_s=0.02), use, Timeouts())
    [row] = book.rows
    assert (row.success, row.error_class, row.cost_source) == (False, ErrorClass.CANCELLED, CostSource.ESTIMATED)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_caller_is_booked_even_while_waiting(stream: bool) -> None:
    book = MemoryBook()

    async def use(provider: Provider, up: Upstream) -> None:
        failover = Failover(PriceBook())
        ask = failover.stream if stream else failover.complete
        task = asyncio.ensure_future(ask(route((provider, "gpt-6-luna")), chat("x"), scope=SCOPE, book=book))
        await asyncio.to_thread(up.control.wait, lambda control: control.count() == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await failover.drain()
        await asyncio.to_thread(up.control.wait, lambda control: control.calls[0].outcome == "client_gone")

    run("openai", Fault("hang"), use, Timeouts())
    [row] = book.rows
    assert (row.error_class, row.cost_source) == (ErrorClass.CANCELLED, CostSource.UNKNOWN)


def test_a_slow_reader_does_not_make_the_upstream_pile_up() -> None:
    """The upstream is read only as fast as the chunks are taken: what lies between are bounded socket buffers."""
    words = 200_000

    def when_still(up: Upstream) -> int:
        sent = -1
        while sent != (sent := up.control.calls[0].tokens.output):
            time.sleep(0.3)  # nothing but standing still tells that the upstream is blocked
        return sent

    async def use(provider: Provider, up: Upstream) -> int:
        async def first_of(chunks: AsyncGenerator[Chunk, None]) -> None:
            async for chunk in chunks:
                if chunk.has_content:
                    return

        chunks = provider.stream("gpt-6-luna", chat(f"[words {words}]"))
        await first_of(chunks)
        sent = await asyncio.to_thread(when_still, up)
        await chunks.aclose()
        return sent

    assert run("openai", None, use, Timeouts()) < words / 2
