"""Neither a caller's nor an upstream's strange JSON may raise anything but a ProviderError."""

import asyncio
import contextlib
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.errors import ProviderError, complaint_in, failure
from providers.openai import ChunkReader, name_token_limit
from providers.provider import ProviderConfig, client_wants_usage
from providers.simulated import SimulatedProvider
from providers.translate.anthropic_meter import EventMeter
from providers.translate.anthropic_to_openai import MessageReader, from_anthropic
from providers.translate.ollama_to_openai import LineReader, from_ollama
from providers.translate.openai_to_anthropic import to_anthropic
from providers.translate.openai_to_ollama import to_ollama
from providers.usage import estimate_prompt_tokens, reported_cost_picousd, usage_from_openai

REQUEST_KEYS = """messages role content text type image_url url tools function name parameters tool_calls id arguments
tool_call_id tool_choice response_format json_schema schema format minItems properties items anyOf n max_tokens temperature
top_p stop user reasoning_effort stream_options include_usage options parallel_tool_calls thinking_blocks cache_control
dimensions input encoding_format max_completion_tokens strict""".split()
ANSWER_KEYS = """type message content_block delta index usage input_tokens output_tokens stop_reason text thinking
partial_json signature choices finish_reason tool_calls function name arguments id model error code status param message done
done_reason prompt_eval_count eval_count prompt_tokens completion_tokens prompt_tokens_details cached_tokens cost
content""".split()
WORDS = """user system assistant tool developer text image_url file function auto none required json_schema json_object
message_start content_block_start content_block_delta content_block_stop message_delta message_stop text_delta tool_use
input_json_delta thinking_delta thinking stop error""".split()


def json_with(keys: list[str]) -> st.SearchStrategy[Any]:
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-3, 10**6)
        | st.floats(allow_nan=False)
        | st.sampled_from(WORDS)
        | st.text(max_size=5)
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(keys), inner, max_size=6),
        max_leaves=25,
    )


def objects(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), json_with(keys), max_size=8)


@settings(max_examples=150)
@given(objects(REQUEST_KEYS), st.lists(objects(REQUEST_KEYS), max_size=3))
def test_a_strange_request(body: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    for given_body in (body, {**body, "messages": messages}):
        before = orjson.dumps(given_body)
        for translate in (lambda b: to_anthropic("m", b), lambda b: to_ollama("m", b, stream=True)):
            with contextlib.suppress(ProviderError):
                orjson.dumps(translate(given_body))
        assert orjson.dumps(given_body) == before, "the caller's body was changed"
        assert estimate_prompt_tokens(given_body) >= 0
        assert client_wants_usage(given_body) in (True, False)
        name_token_limit(dict(given_body), "max_tokens")


@settings(max_examples=60)
@given(objects(REQUEST_KEYS), st.lists(objects(REQUEST_KEYS), max_size=3))
def test_a_strange_request_to_the_simulated_provider(body: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    sim = SimulatedProvider(ProviderConfig("s", "simulated"))
    with contextlib.suppress(ProviderError):
        asyncio.run(sim.chat("echo", {**body, "messages": messages}))
    with contextlib.suppress(ProviderError):
        asyncio.run(sim.embeddings("echo", body))


@settings(max_examples=150)
@given(st.lists(objects(ANSWER_KEYS), max_size=4))
def test_a_strange_answer(bodies: list[dict[str, Any]]) -> None:
    message, lines, chunks, meter = MessageReader("m", ()), LineReader("m", ()), ChunkReader(), EventMeter()
    for body in bodies:
        from_anthropic(body)
        from_ollama(body, "m")
        usage_from_openai(body)
        reported_cost_picousd(body)
        if complaint := complaint_in(body):
            failure(complaint, status=None, headers={})
        with contextlib.suppress(ProviderError):
            list(message.event(body))
        with contextlib.suppress(ProviderError):
            list(meter.event(body))
        with contextlib.suppress(ProviderError):
            list(lines.line(body))
        with contextlib.suppress(ProviderError):
            list(chunks.feed(b"data: " + orjson.dumps(body) + b"\n\n"))
    list(message.usage_chunk())
    list(meter.usage_chunk())


def test_a_type_that_is_no_text_is_none() -> None:
    for kind in ({}, [], 5, None):
        [chunk] = EventMeter().event({"type": "content_block_start", "content_block": {"type": kind}})
        assert chunk.has_content
