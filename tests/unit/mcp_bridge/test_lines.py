import time

from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.lines import LastWords, LineSplitter, Oversized


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"z", b"\n")), max_size=30), st.integers(0, 20))
def test_cuts_as_split_would_whatever_the_chunks(chunks, limit):
    splitter = LineSplitter(limit)
    found = [line for chunk in chunks for line in splitter.feed(chunk)]
    expected = b"".join(chunks).split(b"\n")[:-1]
    assert len(found) == len(expected)
    for line, whole in zip(found, expected, strict=True):
        if len(whole) <= limit:
            assert line == whole
        else:
            assert isinstance(line, Oversized)
            assert whole.endswith(line.tail) and whole.startswith(line.head[: len(whole)])


def test_an_oversized_line_keeps_its_edges_only_and_the_next_line_is_whole():
    splitter = LineSplitter(1_000)
    chunks = [b'{"id": 7,' + b"x" * 300] + [b"y" * 100_000] * 50 + [b"tail}\nnext\n"]
    lost, following = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert isinstance(lost, Oversized)
    assert lost.head.startswith(b'{"id": 7,') and lost.tail.endswith(b"tail}")
    assert len(lost.head) <= 256 and len(lost.tail) <= 256
    assert following == b"next"


def test_the_buffer_never_holds_much_more_than_the_limit():
    splitter = LineSplitter(10_000)
    for _ in range(1_000):
        assert list(splitter.feed(b"x" * 65_536)) == []
    assert len(splitter._buffer) <= 75_536


def test_a_long_line_in_many_chunks_takes_linear_time():
    splitter = LineSplitter(100_000_000)
    started = time.process_time()
    for _ in range(20_000):
        list(splitter.feed(b"x" * 1_000))
    assert [len(line) for line in splitter.feed(b"\n")] == [20_000_000]
    assert time.process_time() - started < 3


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 60))
def test_last_words_keep_at_least_the_end_and_not_much_more(chunks, limit):
    words = LastWords(limit)
    for chunk in chunks:
        words.feed(chunk)
    kept, everything = b"".join(words._chunks), b"".join(chunks)
    assert everything.endswith(kept)
    assert len(kept) >= min(limit, len(everything)) and len(kept) < 2 * limit + 1


def test_last_words_are_one_clean_line():
    words = LastWords()
    words.feed(b"Traceback\n  File x\r\n\x1b[31mError\xff: no key\x00\n")
    assert words.text() == "Traceback File x [31mError\ufffd: no key"
    words.feed(b"long " * 1_000)
    assert words.text(limit=10) == "… long long"
