"""The sixteen situations in which gateways fail over badly (the catalogue of the public Failover Bench), one test each.

A real gateway over upstreams on real sockets. Each situation has a provider of its own at the same upstream, so that one's
rest does not change another's. The primary is of OpenAI's dialect, the fallback of Anthropic's. What went out to a client
cannot be taken back: where a streamed answer breaks in its middle the right answer is an error in the stream. The same
question asked as a whole answer is rescued, and so is a stream whose beginning is held back.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway import Gateway, gateway
from over_upstreams import PRICE
from services import wait_until
from upstreams.anthropic import AnthropicUpstream
from upstreams.book import SCOPE, MemoryBook, chat, route
from upstreams.control import Fault
from upstreams.openai import OpenAIUpstream
from upstreams.serve import RemoteControl, upstream_process

from providers.failover import Failover
from providers.health import Health
from providers.http import HttpClient
from providers.pricing import PriceBook
from providers.provider import ProviderConfig
from providers.registry import build_providers

WHOLE = "Answer to: tell me"
FALLBACK = "claude-sonnet-5-5"
NAMES = [*(f"s{number:02}" for number in range(1, 17)), "gone", "headers", "held", "s14held"]
TIMEOUTS = {"connect": "2s", "first_content": "1s", "idle": "1s", "total": "20s"}


@dataclass
class Told:
    """What a client got of a stream."""

    text: str = ""
    finish: str | None = None
    error: str | None = None
    done: bool = False
    usage: dict[str, Any] | None = None
    models: set[str] = field(default_factory=set[str])


@dataclass
class Bench:
    """The gateway and the two upstreams."""

    gateway: Gateway
    primary: RemoteControl
    fallback: RemoteControl
    http: Any = None

    def __post_init__(self) -> None:
        self.http = self.gateway.http

    def calls(self) -> tuple[int, int]:
        return self.primary.state()["total"], self.fallback.state()["total"]

    def ask(self, name: str, **more: Any) -> Any:
        messages = [{"role": "user", "content": "tell me"}]
        return self.http.post("/v1/chat/completions", json={"model": name, "messages": messages, **more})

    def stream(self, name: str, hold_back: str | None = None, **more: Any) -> Told:
        """The stream as it came, read without a client's opinion."""
        headers = {"x-aigateway-hold-back": hold_back} if hold_back else {}
        body = {
            "model": name,
            "messages": [{"role": "user", "content": "tell me"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **more,
        }
        told = Told()
        with self.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == (
                "no-cache, no-transform",
                "no",
            )
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    told.done = True
                elif line.startswith("data: "):
                    self._note(told, json.loads(line.removeprefix("data: ")))
        return told

    def _note(self, told: Told, event: dict[str, Any]) -> None:
        if "error" in event:
            told.error = event["error"]["message"]
            return
        told.models.add(event["model"])
        told.usage = event.get("usage") or told.usage
        for choice in event["choices"]:
            told.text += choice["delta"].get("content") or ""
            told.finish = choice["finish_reason"] or told.finish

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        return self.http.get(f"/v1/requests/{answer.headers['x-request-id']}").json()["data"]

    def is_alive(self) -> bool:
        return self.ask("simulated/echo").status_code == 200


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("home")
    with upstream_process() as upstreams:
        primary, fallback = upstreams["openai"], upstreams["anthropic"]
        common = {"api_key": "test-key", "prices": PRICE, "timeouts": TIMEOUTS}
        providers: dict[str, Any] = {name: {"type": "openai", "base_url": primary.base_url, **common} for name in NAMES}
        providers["other"] = {"type": "anthropic", "base_url": fallback.base_url, **common}
        models: dict[str, Any] = {name: {"targets": [f"{name}/gpt-6-luna", f"other/{FALLBACK}"]} for name in NAMES}
        models["held"]["hold_back"] = "3s"
        with gateway(folder, {"providers": providers, "models": models}) as installed:
            installed.serve(workers=0)
            yield Bench(installed, primary, fallback)


@pytest.fixture
def bench(stand: Bench) -> Bench:
    stand.primary.reset()
    stand.fallback.reset()
    return stand


def is_whole(told: Told) -> bool:
    return (told.text, told.finish, told.error, told.done) == (WHOLE, "stop", None, True)


def is_broken_and_says_so(told: Told) -> bool:
    """Not whole, and nothing that a client could take for the end of an answer."""
    return bool(told.error) and told.finish is None and not told.done and told.text != WHOLE


def test_s01_429_with_retry_after_is_waited_out(bench: Bench) -> None:
    bench.primary.script(Fault("status", status=429, headers={"Retry-After": "1"}))
    started = time.monotonic()
    assert is_whole(bench.stream("s01"))
    assert time.monotonic() - started >= 0.95
    assert bench.calls() == (2, 0)


def test_s02_429_for_ever_backs_off_and_fails_over(bench: Bench) -> None:
    bench.primary.always(Fault("status", status=429))
    started = time.monotonic()
    assert is_whole(bench.stream("s02"))
    assert time.monotonic() - started >= 0.7  # pauses between the tries: at least half of 0.5 s and of 1 s
    assert bench.calls() == (3, 1)


def test_s03_500_once_is_tried_again_at_the_same_provider(bench: Bench) -> None:
    bench.primary.script(Fault("status", status=500))
    assert is_whole(bench.stream("s03"))
    assert bench.calls() == (2, 0)


def test_s04_503_for_ever_fails_over_and_is_the_answer_where_nobody_is_left(bench: Bench) -> None:
    bench.primary.always(Fault("status", status=503, message="All servers are full."))
    assert is_whole(bench.stream("s04"))
    assert bench.calls() == (3, 1)
    alone = bench.ask("s04/gpt-6-luna")
    assert (alone.status_code, alone.json()["error"]["message"]) == (503, "All servers are full.")
    assert alone.headers["x-should-retry"] == "false"


def test_s05_a_reset_before_any_answer_is_tried_again(bench: Bench) -> None:
    bench.primary.script(Fault("reset"))
    assert is_whole(bench.stream("s05"))
    assert bench.calls() == (2, 0)


def test_s06_no_answer_at_all_fails_over_after_one_wait(bench: Bench) -> None:
    bench.primary.always(Fault("hang"))
    started = time.monotonic()
    assert is_whole(bench.stream("s06"))
    assert time.monotonic() - started < 10
    assert bench.calls() == (1, 1)


def test_s07_a_slow_first_token_fails_over_at_its_limit(bench: Bench) -> None:
    """The headers and an opening chunk come at once: they are no content, and are held back."""
    bench.primary.always(Fault("role_then_stall"))
    started = time.monotonic()
    told = bench.stream("s07")
    assert is_whole(told) and told.models == {FALLBACK}
    assert time.monotonic() - started < 10
    assert bench.calls() == (1, 1)


def test_s08_a_stream_that_is_cut_is_never_shown_as_whole(bench: Bench) -> None:
    bench.primary.script(Fault("cut", after=2))
    told = bench.stream("s08")
    assert is_broken_and_says_so(told) and told.text == "Answer to: "
    assert bench.calls() == (1, 0)
    bench.primary.script(Fault("cut"))
    answer = bench.ask("s08")
    assert answer.json()["choices"][0]["message"]["content"] == WHOLE
    assert [row["success"] for row in bench.rows(answer)] == [False, True]


def test_s08_the_openai_client_raises(bench: Bench) -> None:
    bench.primary.script(Fault("cut", after=2))
    client = openai.OpenAI(base_url=f"{bench.gateway.url}/v1", api_key="any", max_retries=0)
    messages: Any = [{"role": "user", "content": "tell me"}]
    with pytest.raises(openai.APIError), client:
        for _ in client.chat.completions.create(model="s08", messages=messages, stream=True):
            pass


def test_s09_a_stream_that_stalls_ends_at_its_limit(bench: Bench) -> None:
    bench.primary.script(Fault("stall", after=2))
    started = time.monotonic()
    told = bench.stream("s09")
    assert is_broken_and_says_so(told)
    assert time.monotonic() - started < 10
    assert bench.is_alive()
    state = bench.primary.wait(lambda state: state["running"] == 0)
    assert state["calls"][-1]["outcome"] == "client_gone"  # the connection is not kept


def test_s10_a_malformed_chunk_is_an_error_and_harms_nobody_else(bench: Bench) -> None:
    bench.primary.script(Fault("malformed", after=2))
    assert is_broken_and_says_so(bench.stream("s10"))
    bench.primary.script(Fault("malformed", after=0))
    assert is_whole(bench.stream("s10"))  # nothing had gone out yet
    assert bench.is_alive()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("s08", Fault("cut", after=2)),
        ("s09", Fault("stall", after=2)),
        ("s10", Fault("malformed", after=2)),
        ("held", Fault("error_in_stream", after=1)),
    ],
)
def test_what_is_held_back_is_rescued(bench: Bench, name: str, fault: Fault) -> None:
    """As the client sees it nothing happened; the primary is asked again, or the fallback where it took too long."""
    bench.primary.script(fault)
    told = bench.stream(name, hold_back=None if name == "held" else "3s")  # one says so in its configuration
    assert is_whole(told) and told.usage
    assert bench.calls() == ((1, 1) if fault.kind == "stall" else (2, 0))
    rows = bench.http.get("/v1/requests?limit=2").json()["data"]
    assert [row["success"] for row in rows] == [True, False] and rows[1]["completion_tokens"] > 0


def test_s14_held_back_it_begins_anew_and_puts_nothing_into_the_fallbacks_mouth(bench: Bench) -> None:
    bench.primary.always(Fault("cut", after=2))
    told = bench.stream("s14held", hold_back="3s")
    assert is_whole(told) and told.models == {FALLBACK}
    assert [message["role"] for message in bench.fallback.state()["calls"][-1]["body"]["messages"]] == ["user"]


def test_what_is_held_back_goes_out_when_its_time_is_over(bench: Bench) -> None:
    """A slow stream is not kept to its end: the rest of it comes as it is told, and what breaks then is told as ever."""
    bench.primary.script(Fault("slow", delay_s=0.3), Fault("slow", delay_s=0.3))
    body = {"model": "held", "messages": [{"role": "user", "content": "tell me"}], "stream": True}
    for hold_back, least_s in (("400ms", 0.25), ("0", 0.25)):
        with bench.http.stream(
            "POST", "/v1/chat/completions", json=body, headers={"x-aigateway-hold-back": hold_back}
        ) as answer:
            first = last = 0.0
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    last = time.monotonic()
                    first = first or last
        assert last - first >= least_s, hold_back
    for wrong in ("soon", "-1s", "2h"):
        answer = bench.http.post("/v1/chat/completions", json=body, headers={"x-aigateway-hold-back": wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-aigateway-hold-back")


def test_s11_a_missing_done_is_no_failure(bench: Bench) -> None:
    bench.primary.script(Fault("no_done"))
    started = time.monotonic()
    told = bench.stream("s11")
    assert is_whole(told) and told.usage
    assert time.monotonic() - started < 5
    assert bench.calls() == (1, 0)


def test_s12_a_context_that_is_too_long_goes_to_another_model_once(bench: Bench) -> None:
    too_long = Fault("status", status=400, code="context_length_exceeded", message="Too long by far.")
    bench.primary.always(too_long)
    assert is_whole(bench.stream("s12"))
    assert bench.calls() == (1, 1)
    alone = bench.ask("s12/gpt-6-luna")
    assert (alone.status_code, alone.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert bench.calls() == (2, 1)


def test_s13_a_content_filter_is_not_routed_around(bench: Bench) -> None:
    bench.primary.always(Fault("status", status=400, code="content_policy_violation", message="Not this."))
    answer = bench.ask("s13", stream=True)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (400, "content_policy_violation", "Not this.")
    assert bench.calls() == (1, 0)


def test_s14_a_fallback_that_rejects_prefill_hides_nothing(bench: Bench) -> None:
    """What went out is not put into the mouth of the fallback; and its own refusal is not the answer to another's failure."""
    rejected = Fault("status", status=400, message="This model does not support assistant message prefill.")
    bench.fallback.always(rejected)
    bench.primary.script(Fault("cut", after=2))
    told = bench.stream("s14")
    assert is_broken_and_says_so(told) and "prefill" not in (told.error or "")
    assert bench.calls() == (1, 0)
    bench.primary.always(Fault("status", status=503, message="Full."))
    own = [{"role": "user", "content": "tell me"}, {"role": "assistant", "content": "Answer"}]
    answer = bench.ask("s14", messages=own)
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "Full.")
    assert [row["status_code"] for row in bench.rows(answer)] == [503, 503, 503, 400]
    bench.fallback.always(None)
    bench.primary.always(Fault("cut"))
    assert bench.ask("s14").json()["choices"][0]["message"]["content"] == WHOLE  # asked anew, from the start
    assert bench.fallback.state()["calls"][-1]["outcome"] == "ok"


def test_s15_a_primary_that_flaps_is_left_alone_tried_once_and_taken_back() -> None:
    """Twenty requests, one every four seconds, the primary down for the first minute: served throughout, and back at the primary."""
    with OpenAIUpstream() as first, AnthropicUpstream() as second:

        async def main() -> None:
            now = [1_000_000_000]
            http = HttpClient()
            configs = [
                ProviderConfig("first", "openai", first.base_url, "test-key"),
                ProviderConfig("second", "anthropic", second.base_url, "test-key"),
            ]
            providers = build_providers(configs, http)
            where = route((providers["first"], "gpt-6-luna"), (providers["second"], FALLBACK))
            clock = lambda: now[0]  # noqa: E731

            async def no_pause(_: float) -> None:
                return

            failover = Failover(PriceBook(), clock=clock, sleep=no_pause, health=Health(clock))
            served: list[str] = []
            asked: list[int] = []
            first.control.always(Fault("status", status=503))
            for number in range(20):
                if number == 15:
                    first.control.always(None)
                before = first.control.count()
                async with await failover.stream(where, chat("hi"), scope=SCOPE, book=MemoryBook()) as stream:
                    assert [chunk async for chunk in stream][-1].usage_only
                served.append(stream.provider)
                asked.append(first.control.count() - before)
                now[0] += 4_000_000
            await http.close()
            down = asked[:15]
            assert down[0] == 3 and sum(down[1:]) == sum(count > 0 for count in down[1:]) <= 5  # one call a probe
            assert served[:15] == ["second"] * 15
            back = served.index("first")
            assert back - 15 <= 3 and set(served[back:]) == {"first"}  # within 12 s, for good

        asyncio.run(main())


def test_s16_the_books_tell_who_answered_and_who_did_not(bench: Bench) -> None:
    bench.primary.always(Fault("status", status=503))
    answer = bench.ask("s16")
    body = answer.json()
    assert (body["model"], body["aigateway"]["model"], answer.headers["x-aigateway-provider"]) == (
        FALLBACK,
        FALLBACK,
        "other",
    )
    assert body["usage"]["total_tokens"] > 0
    rows = bench.rows(answer)
    assert [(row["provider"], row["success"], row["cost_usd"], row["total_tokens"]) for row in rows[:-1]] == [
        ("s16", False, 0, None)
    ] * 3
    assert (rows[-1]["provider"], rows[-1]["model"], rows[-1]["success"]) == ("other", FALLBACK, True)
    assert round(rows[-1]["cost_usd"] * 10**12) == bench.fallback.state()["bill_picousd"]
    told = bench.stream("s16")
    assert is_whole(told) and told.models == {FALLBACK} and told.usage


def test_nobody_is_asked_for_a_client_that_has_left(bench: Bench) -> None:
    """It leaves while the primary is silent: that call ends, and the fallback is never made."""
    bench.primary.always(Fault("hang"))
    with pytest.raises(Exception, match="timed out"):
        body = {"model": "gone", "messages": [{"role": "user", "content": "tell me"}]}
        bench.http.post("/v1/chat/completions", json=body, timeout=0.3)
    bench.primary.wait(lambda state: state["total"] == 1 and state["running"] == 0)
    newest: list[dict[str, Any]] = []

    def is_over() -> bool:
        newest[:] = bench.http.get("/v1/requests", params={"limit": 2}).json()["data"]
        return newest[0]["provider"] == "gone" and newest[0]["status"] != "started"

    wait_until(is_over, "the call is booked", 5)
    assert newest[0]["error_class"] == "cancelled" and newest[1]["provider"] != "gone"
    assert bench.calls() == (1, 0)


def test_a_clients_headers_and_key_reach_no_upstream(bench: Bench) -> None:
    bench.primary.always(Fault("status", status=401))
    secret = {"authorization": "Bearer sk-of-the-client", "x-own": "secret", "cookie": "a=b", "anthropic-beta": "x"}
    messages = [{"role": "user", "content": "tell me"}]
    answer = bench.http.post("/v1/chat/completions", json={"model": "headers", "messages": messages}, headers=secret)
    assert answer.headers["x-aigateway-provider"] == "other"
    for control in (bench.primary, bench.fallback):
        sent = {name.lower(): value for name, value in control.state()["calls"][-1]["headers"].items()}
        assert not {"x-own", "cookie", "anthropic-beta"} & sent.keys()
        assert "sk-of-the-client" not in str(sent)
