"""Kept answers, by Idempotency-Key and by the exact cache: claims, and what keeps both tables small. On both databases."""

from collections.abc import Iterator

import pytest
from stage import Stage

from engine import answer_cache
from engine.answer_cache import CachedAnswer, recall_answer, remember_answer
from engine.clock import now_us
from engine.errors import Conflict
from engine.kept_answers import LIFETIME_S, Claim, KeptAnswer, Mine, UnderWay, claim, keep_answer, release_answer
from engine.store.cached_answers import cache_size
from engine.store.kept_answers import kept_answer

DAY_US = LIFETIME_S * 1_000_000


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    stage = Stage(database_url)
    yield stage
    stage.database.close()


def asked(stage: Stage, request: str, digest: str = "d", fingerprint: str = "f") -> Claim:
    return Claim(digest, fingerprint, stage.worker, request)


def test_a_claim_is_one_requests_until_it_is_answered_or_given_up(stage: Stage) -> None:
    now = now_us()
    first, second = asked(stage, "one"), asked(stage, "two")
    for _ in range(2):  # committed, reply lost
        assert stage.write(lambda tx: claim(tx, first, now)) == Mine()
    assert isinstance(stage.write(lambda tx: claim(tx, second, now)), UnderWay)
    other = asked(stage, "three", fingerprint="g")
    assert isinstance(stage.write(lambda tx: claim(tx, other, now)), Conflict)
    stage.write(lambda tx: keep_answer(tx, second, 200, [], b"not mine", now))
    stage.write(lambda tx: release_answer(tx, second))
    assert isinstance(stage.write(lambda tx: claim(tx, second, now)), UnderWay)
    stage.write(lambda tx: release_answer(tx, first))
    assert stage.write(lambda tx: claim(tx, second, now)) == Mine()
    stage.write(lambda tx: keep_answer(tx, second, 200, [("a", "b")], b'{"\xc3\xa4":1}', now))
    stage.write(lambda tx: release_answer(tx, second))  # too late to change anything
    kept = stage.write(lambda tx: claim(tx, first, now + DAY_US - 1))
    assert kept == KeptAnswer("two", 200, [("a", "b")], b'{"\xc3\xa4":1}')
    assert stage.write(lambda tx: claim(tx, other, now + DAY_US)) == Mine()


def test_a_claim_ends_with_its_process_and_by_age(stage: Stage) -> None:
    now = now_us()
    stage.write(lambda tx: claim(tx, asked(stage, "one"), now))
    assert stage.write(lambda tx: claim(tx, asked(stage, "two"), now, dead=stage.worker)) == Mine()
    lost = Claim("gone", "f", "00000000-0000-0000-0000-000000000000", "one")
    assert stage.write(lambda tx: claim(tx, lost, now)) == Mine()
    assert stage.write(lambda tx: claim(tx, asked(stage, "two", "gone"), now)) == Mine()
    assert stage.write(lambda tx: claim(tx, asked(stage, "old", "age"), now - 3_600_000_000)) == Mine()
    assert stage.write(lambda tx: claim(tx, asked(stage, "new", "age"), now)) == Mine()


def test_expired_answers_go_in_small_batches(stage: Stage) -> None:
    now = now_us()
    for number in range(30):
        stage.write(lambda tx, at=number: claim(tx, asked(stage, "x", f"d{at:02}"), now + at))
    later = now + DAY_US + 1_000
    for number, expected in enumerate((11, 2)):  # 30 of them, 20 at once, and the new ones
        stage.write(lambda tx, at=number: claim(tx, asked(stage, "y", f"new{at}"), later))
        names = [f"d{at:02}" for at in range(30)] + [f"new{at}" for at in range(number + 1)]
        assert sum(stage.read(lambda tx, one=name: kept_answer(tx, one)) is not None for name in names) == expected


def test_the_cache_is_bounded_in_number_bytes_and_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    now = now_us()

    def keep(digest: str, text: str = "x", lifetime_s: float = 60, at: int = now) -> None:
        entry = CachedAnswer({"body": text}, "p", "m", 5, at)
        stage.write(lambda tx: remember_answer(tx, digest, entry, lifetime_s, at))

    monkeypatch.setattr(answer_cache, "MOST_ENTRIES", 20)
    monkeypatch.setattr(answer_cache, "_FORGOTTEN_AT_ONCE", 3)
    for number in range(60):
        keep(f"d{number}", lifetime_s=60 + number)
    assert stage.read(cache_size)[0] <= 20
    assert stage.read(lambda tx: recall_answer(tx, "d59", now)) is not None
    assert stage.read(lambda tx: recall_answer(tx, "d0", now)) is None
    monkeypatch.setattr(answer_cache, "MOST_BYTES", 2_000)
    for number in range(10):
        keep(f"big{number}", "y" * 500, lifetime_s=600)
    assert stage.read(cache_size)[1] <= 2_000 + 600
    keep("huge", "z" * (answer_cache.MOST_ENTRY_BYTES + 1))
    assert stage.read(lambda tx: recall_answer(tx, "huge", now)) is None
    later = now + 700_000_000
    assert stage.read(lambda tx: recall_answer(tx, "big9", later)) is None
    for number in range(9):
        keep(f"late{number}", at=later)
    assert stage.read(cache_size)[0] == 9
