"""Whatever JSON a client sends to `/v1/messages` or `/v1/responses`: an answer or a refusal by name, and no other error."""

import contextlib
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.errors import ProviderError
from providers.provider import Chunk
from providers.translate import anthropic_in_events, responses_in_events
from providers.translate.anthropic_in import from_messages
from providers.translate.anthropic_in_answer import to_message, without_unsigned
from providers.translate.anthropic_meter import EventMeter, content_size
from providers.translate.responses_in import from_responses
from providers.translate.responses_in_answer import response_frame, to_response
from providers.usage import estimate_prompt_tokens

KEYS = """messages role content text type source data media_type url tools name input_schema id tool_use_id tool_choice is_error
input title context system thinking budget_tokens signature output_config format schema properties required effort metadata
user_id stop_sequences cache_control citations enabled stream call_id arguments output summary encrypted_content image_url
file_data instructions include reasoning truncation store mode parameters anyOf items""".split()
WORDS = """user assistant system developer text image document search_result tool_use tool_result thinking redacted_thinking
base64 url content custom function auto any tool none enabled disabled adaptive json_schema object message reasoning input_text
function_call function_call_output input_image input_file output_text refusal allowed_tools""".split()
LEAVES = st.none() | st.booleans() | st.integers(-3, 10**6) | st.sampled_from(WORDS) | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8)
UNHURRIED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@UNHURRIED
@given(OBJECTS, st.lists(OBJECTS, max_size=3))
def test_a_strange_request(body: dict[str, Any], turns: list[dict[str, Any]]) -> None:
    for given_body in (body, {**body, "messages": turns}, {**body, "input": turns}):
        before = orjson.dumps(given_body)
        for target in ("openai", "ollama"):
            with contextlib.suppress(ProviderError):
                from_messages(given_body, target)  # type: ignore[arg-type]
        with contextlib.suppress(ProviderError):
            from_responses(given_body).worded("anthropic")
        without_unsigned(given_body)
        estimate_prompt_tokens(given_body)
        assert orjson.dumps(given_body) == before


@UNHURRIED
@given(st.lists(OBJECTS, max_size=4))
def test_a_strange_answer(pieces: list[dict[str, Any]]) -> None:
    meter = EventMeter()
    writers = anthropic_in_events.EventWriter("m"), responses_in_events.EventWriter(response_frame({}, "m"))
    for piece in pieces:
        content_size(piece)
        with contextlib.suppress(ProviderError):
            list(meter.event(piece))
        for body in ({"choices": pieces}, {"choices": [{"delta": piece, "message": piece}]}):
            to_message(body, "m", None)
            to_response(body, {}, "m", None)
            for writer in writers:
                with contextlib.suppress(ProviderError):
                    list(writer.chunk(Chunk(body)))
    for writer in writers:
        assert list(writer.end(None))
