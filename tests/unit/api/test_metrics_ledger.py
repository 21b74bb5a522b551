"""The sums that metrics show: the same as the rows at every moment, whatever was remembered, and never falling."""

import os
import random
import uuid

from stage import Stage

from engine.clock import now_us
from engine.ledger import CallScope, CostSource, Usage
from engine.store.ledger_totals import MOST_LABELS, OTHER, Folded, Labels, Totals, read_totals
from engine.store.requests import abandon_requests
from engine.store.retention import delete_old

MINUTE_US = 60_000_000
LUNA: Labels = ("openai", "gpt-6-luna", "")


def id_at(at_us: int) -> str:
    tail = int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    return str(uuid.UUID(int=at_us // 1000 << 80 | 0x7 << 76 | 0b10 << 62 | tail))


def read(stage: Stage, folded: Folded, now: int) -> tuple[Folded, dict[Labels, Totals]]:
    return stage.read(lambda tx: read_totals(tx, folded, now))


def open_old(stage: Stage, minutes: float, **more: str) -> str:
    at = now_us() - int(minutes * MINUTE_US)
    return stage.open(call_id=id_at(at), at_us=at, **more)


def test_a_settled_call_is_in_every_figure(stage: Stage) -> None:
    stage.settle(stage.open(), latency_us=1_200_000, ttft_us=300_000)
    stage.fail(stage.open(), latency_us=20_000)
    stage.settle(stage.open(), cost_picousd=None, cost_source=CostSource.UNKNOWN, latency_us=700_000_000)
    totals = read(stage, Folded(), now_us())[1][LUNA]
    assert totals.calls == {("succeeded", ""): 2, ("failed", "rate_limit"): 1}
    assert (totals.cost_picousd, totals.unknown_price) == (1_500_000_000, 1)
    assert totals.tokens == {"input": 200, "cache_read": 40, "cache_write": 10, "output": 80}
    assert (totals.latency[0], totals.latency[5], totals.latency[-1]) == (1, 1, 1)
    assert (totals.ttft[3], sum(totals.ttft)) == (2, 2)
    assert (totals.latency_ms, totals.ttft_ms) == (701_220, 600)


def test_an_old_open_call_is_counted_when_it_settles_at_last(stage: Stage) -> None:
    old = open_old(stage, 90)
    folded, totals = read(stage, Folded(), now_us())
    assert totals[LUNA].open == {"started": 1} and not totals[LUNA].calls
    assert folded.open_ids == {old}
    stage.write(lambda tx: abandon_requests(tx, stage.worker, now_us()))
    folded, totals = read(stage, folded, now_us())
    assert totals[LUNA].open == {"unknown": 1} and not totals[LUNA].calls
    stage.settle(old)
    folded, totals = read(stage, folded, now_us())
    assert totals[LUNA].calls == {("succeeded", ""): 1} and not totals[LUNA].open
    assert not folded.open_ids
    assert read(stage, folded, now_us())[1] == totals


def test_a_row_from_a_slow_clock_is_found(stage: Stage) -> None:
    stage.settle(open_old(stage, 5))
    folded, _ = read(stage, Folded(), now_us())
    stage.settle(open_old(stage, 30))
    assert read(stage, folded, now_us())[1][LUNA].calls == {("succeeded", ""): 2}


def test_what_is_remembered_never_differs_from_the_rows_and_no_sum_falls(stage: Stage) -> None:
    chance = random.Random(7)
    folded, now = Folded(), now_us()
    waiting: list[str] = []
    seen = 0
    for _ in range(60):
        now += chance.randrange(30_000_000)
        for _ in range(chance.randrange(4)):
            at = now - chance.randrange(MINUTE_US)
            waiting.append(stage.open(call_id=id_at(at), at_us=at, model=chance.choice(["a", "b"])))
        chance.shuffle(waiting)
        for call in [waiting.pop() for _ in range(chance.randrange(len(waiting) + 1))]:
            stage.settle(call, latency_us=chance.randrange(10**9), usage=Usage(input=chance.randrange(99)))
        if chance.random() < 0.1:
            stage.write(lambda tx, at=now: abandon_requests(tx, stage.worker, at))
        if chance.random() < 0.2:  # as retention does it: what is deleted goes on being counted
            stage.write(lambda tx, at=now - 2 * MINUTE_US: delete_old(tx, "requests", at, 5))
        folded, totals = read(stage, folded, now)
        fresh = read(stage, Folded(), now)[1]
        for labels, found in fresh.items():
            assert abs(totals[labels].latency_ms - found.latency_ms) < 1
            found.latency_ms, found.ttft_ms = totals[labels].latency_ms, totals[labels].ttft_ms
        assert totals == fresh
        settled = sum(sum(found.calls.values()) for found in totals.values())
        assert settled >= seen
        seen = settled
    assert folded.rows > 0 and seen > folded.rows


def test_label_sets_are_bounded_and_a_shown_one_stays(stage: Stage) -> None:
    big = [stage.open(model="big") for _ in range(3)]
    small = [stage.open(model=f"m{number:03d}") for number in range(MOST_LABELS + 20)]
    for call in (*big, *small):
        stage.settle(call)
    folded, totals = read(stage, Folded(), now_us())
    assert len(totals) == MOST_LABELS + 1
    assert totals["openai", "big", ""].calls == {("succeeded", ""): 3}
    assert totals[OTHER].calls == {("succeeded", ""): 21}
    last = ("openai", f"m{MOST_LABELS + 19:03d}", "")
    assert last not in totals
    for _ in range(5):
        stage.settle(stage.open(model=last[1]))
    totals = read(stage, folded, now_us())[1]
    assert last not in totals
    assert totals[OTHER].calls == {("succeeded", ""): 26}


def test_a_workflow_is_a_label(stage: Stage) -> None:
    stage.settle(stage.open(scope=CallScope("r", workflow_name="digest")))
    assert set(read(stage, Folded(), now_us())[1]) == {("openai", "gpt-6-luna", "digest")}
