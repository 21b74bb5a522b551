import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.lines import LineBuffer, LineTooLong
from providers.sse import Event, EventParser

STREAM = (
    "\ufeff: a comment\r\nevent: greeting\r\ndata: grüß\r\ndata: dich\r\n\r\n"
    "data:plain\n\nid: 7\nretry: 10\n\ndata: cr\rdata: only\r\rdata: 🙂 [DONE]\n\n"
).encode()
EVENTS = [
    Event("greeting", "grüß\ndich".encode()),
    Event("message", b"plain"),
    Event("message", b"cr\nonly"),
    Event("message", "🙂 [DONE]".encode()),
]


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=40))
def test_events_do_not_depend_on_where_the_stream_is_cut(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    events = [event for a, b in itertools.pairwise(edges) for event in parser.feed(STREAM[a:b])]
    assert events + parser.close() == EVENTS


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"data: a\n\n", b"data: b\n\n"], [Event("message", b"a"), Event("message", b"b")]),
        ([b"event: x\n", b"data: a\n\n"], [Event("x", b"a")]),
        ([b"data: a\n", b"data: b\n\n"], [Event("message", b"a\nb")]),
        ([b"da", b"data: a\n\n", b"data: b\n\n"], [Event("message", b"b")]),
        ([b"data: a\r", b"data: b\n\n"], [Event("message", b"a\nb")]),
        ([b"data: a\n\n\n", b"data: b\r\n\n"], [Event("message", b"a"), Event("message", b"b")]),
        ([b"data:  a\n\n", b"data: \n\n"], [Event("message", b" a"), Event("message", b"")]),
        ([b"data: a\n\n", b"\xef\xbb\xbfdata: b\n\n"], [Event("message", b"a")]),
    ],
)
def test_an_event_in_one_piece_is_what_it_would_be_in_many(pieces: list[bytes], expected: list[Event]) -> None:
    whole, bytewise = EventParser(), EventParser()
    assert [event for piece in pieces for event in whole.feed(piece)] == expected
    assert [event for byte in b"".join(pieces) for event in bytewise.feed(bytes([byte]))] == expected


def test_an_event_without_its_blank_line_comes_at_the_end() -> None:
    parser = EventParser()
    assert parser.feed(b"data: [DONE]") == []
    assert parser.close() == [Event("message", b"[DONE]")]
    assert parser.close() == []


def test_what_grows_without_end_is_refused() -> None:
    with pytest.raises(LineTooLong):
        EventParser(max_event_bytes=100).feed(b"data: " + b"x" * 200)
    parser = EventParser(max_event_bytes=100)
    with pytest.raises(LineTooLong):
        for _ in range(100):
            parser.feed(b"data: 123456789\n")


@given(
    st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")), min_size=1), st.data()
)
def test_lines_survive_any_cut(lines: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(line + data.draw(st.sampled_from([b"\n", b"\r\n"])) for line in lines)
    cut = data.draw(st.integers(0, len(raw)))
    buffer = LineBuffer()
    assert buffer.feed(raw[:cut]) + buffer.feed(raw[cut:]) == lines
    assert buffer.close() == b""
