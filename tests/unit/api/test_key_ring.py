"""How a request shows its key, and for how long an answer about a key is believed."""

import asyncio
import base64

import pytest
from stage import Stage

from api.key_ring import KeyRing, carries_credentials
from engine.api_keys import NewKey, create_key, hash_of, new_secret, revoke
from engine.clock import now_us
from engine.store.api_keys import any_key, list_keys


def basic(password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"me:{password}".encode())


def made(stage: Stage, name: str = "mine") -> str:
    secret = new_secret()
    stage.write(lambda tx: create_key(tx, NewKey(name), secret, now_us()))
    return secret


def test_every_way_to_show_a_key_is_understood(stage: Stage) -> None:
    secret = made(stage)
    told = secret.encode()
    ring = KeyRing(stage.database)
    for headers in (
        [(b"authorization", b"Bearer " + told)],
        [(b"authorization", b"bearer  " + told + b" ")],
        [(b"x-api-key", told)],
        [(b"authorization", b"Bearer of somebody else"), (b"x-api-key", told)],
        [(b"authorization", basic(secret))],
        [(b"authorization", basic(secret)), (b"sec-fetch-site", b"same-origin")],
        [(b"authorization", basic(secret)), (b"host", b"box:8080"), (b"origin", b"http://box:8080")],
    ):
        key = asyncio.run(ring.of_request(headers))
        assert key is not None, headers
        assert key.name == "mine"


def test_the_limits_of_a_key_that_asked_are_at_hand(stage: Stage) -> None:
    ring, told = KeyRing(stage.database), made(stage).encode()
    key = asyncio.run(ring.of_request([(b"x-api-key", told)]))
    assert key is not None
    assert ring.limits_of(key.id) == key
    assert ring.limits_of("another") is ring.limits_of(None) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer"),
        (b"authorization", b""),
        (b"authorization", b"Bearer agw-short"),
        (b"authorization", b"Basic %%%"),
        (b"authorization", "Bearer agw-\xff".encode("latin-1")),
        (b"x-api-key", b"agw-" + b"x" * 43),
        (b"cookie", b"agw-" + b"x" * 43),
    ],
)
def test_what_is_no_key_is_none(stage: Stage, name: bytes, value: bytes) -> None:
    made(stage)
    assert asyncio.run(KeyRing(stage.database).of_request([(name, value)])) is None
    assert carries_credentials([]) is False


@pytest.mark.parametrize("mark", [(b"sec-fetch-site", b"cross-site"), (b"origin", b"https://evil.example")])
def test_a_password_that_a_browser_adds_to_another_sites_request_does_not_count(
    stage: Stage, mark: tuple[bytes, bytes]
) -> None:
    """Browsers leave Sec-Fetch-Site out on plain HTTP between machines."""
    headers = [(b"host", b"box:8080"), (b"authorization", basic(made(stage))), mark]
    assert asyncio.run(KeyRing(stage.database).of_request(headers)) is None


def test_what_was_found_is_believed_for_a_second_and_no_longer(stage: Stage) -> None:
    now = [100.0]
    secret = made(stage)
    ring = KeyRing(stage.database, clock=lambda: now[0])
    headers = [(b"x-api-key", secret.encode())]
    unknown = new_secret()

    def held() -> bool:
        key = asyncio.run(ring.of_request(headers))
        assert key is not None
        return key.revoked_us is None

    assert held()
    stage.write(lambda tx: revoke(tx, "mine", now_us()))
    now[0] += 0.9
    assert held()
    now[0] += 0.2
    assert not held()
    assert asyncio.run(ring.of_request([(b"x-api-key", unknown.encode())])) is None
    stage.write(lambda tx: create_key(tx, NewKey("late"), unknown, now_us()))
    ring.forget()
    assert asyncio.run(ring.of_request([(b"x-api-key", unknown.encode())])) is not None


def test_the_secret_is_nowhere_in_the_database(stage: Stage) -> None:
    secret = made(stage)
    row = stage.read(lambda tx: list_keys(tx, None, 10))[0]
    assert row["hash"] == hash_of(secret)
    assert not [value for value in row.values() if isinstance(value, str) and secret[12:] in value]
    assert len({new_secret() for _ in range(100)}) == 100


def test_a_key_that_was_revoked_leaves_its_name_to_another(stage: Stage) -> None:
    made(stage)
    stage.write(lambda tx: revoke(tx, "mine", now_us()))
    assert not stage.read(any_key)
    made(stage)
    assert stage.read(any_key)
    key = stage.write(lambda tx: revoke(tx, "mine", now_us()))
    assert key.revoked_us is not None
    assert not stage.read(any_key)
