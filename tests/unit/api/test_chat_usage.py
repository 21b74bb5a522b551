"""The usage of a chat answer where its upstream tells none, on the last chunk of a stream and on a whole answer."""

from typing import Any

from api.answers import Whole
from api.chat import ChatConversation
from engine.ledger import Usage
from providers.provider import Chunk

SUMMARY = {"cost_usd": 0.5}


def last_chunks(*chunks: Chunk, usage: Usage | None, **options: Any) -> list[Any]:
    talk = ChatConversation({"model": "m", "stream": True, "stream_options": options})
    for chunk in chunks:
        list(talk.chunk(chunk))
    return list(talk.end(usage, SUMMARY))


def chunk(**fields: Any) -> Chunk:
    return Chunk({"id": "c1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}}], **fields})


def test_an_upstream_that_sends_no_usage_chunk_leaves_it_to_be_made() -> None:
    """Some tell the usage on the last chunk with a choice, some not at all: what was booked is told, the cost beside it."""
    first = chunk(model="gemini")
    made = last_chunks(first, chunk(usage={}), usage=Usage(input=3, output=2), include_usage=True)
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    frame = {"id": "c1", "object": "chat.completion.chunk", "model": "gemini"}
    assert made == [{**frame, "choices": [], "usage": usage, "aigateway": SUMMARY}]
    assert last_chunks(first, usage=Usage(input=3)) == []
    assert last_chunks(first, usage=None, include_usage=True) == []


def test_its_own_usage_chunk_is_passed_on() -> None:
    own = Chunk({"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "x": 1}}, usage_only=True)
    told = last_chunks(chunk(), own, usage=Usage(input=3), include_usage=True)
    assert told == [{**own.body, "aigateway": SUMMARY}]
    assert last_chunks(chunk(), own, usage=Usage(input=3), include_usage=False) == []


def test_a_whole_answer_without_usage_tells_what_was_booked() -> None:
    talk = ChatConversation({"model": "m"})
    told = talk.whole(Whole({"id": "c1", "choices": []}, "m", Usage(input=3, output=2), SUMMARY, {}))
    assert told["usage"]["total_tokens"] == 5 and told["aigateway"] == SUMMARY
    own = talk.whole(Whole({"usage": {"prompt_tokens": 7}}, "m", Usage(input=7), SUMMARY, {}))
    assert own["usage"] == {"prompt_tokens": 7}
