"""Other web sites are kept out of a gateway that asks for no key; programs and its own pages are not."""

import pytest

from api.errors import HttpError
from api.origin import check_origin


def scope(**headers: str) -> dict[str, object]:
    return {"headers": [(name.encode(), value.encode()) for name, value in headers.items()]}


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8080"},
        {"host": "localhost:8080", "origin": "http://localhost:3000"},
        {"host": "[::1]:8080", "origin": "http://[::1]:8080"},
        {},
    ],
)
def test_this_machine_is_let_in(headers: dict[str, str]) -> None:
    check_origin(scope(**headers), on_loopback=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1:8080", "origin": "https://evil.example"},
        {"host": "127.0.0.1:8080", "origin": "null"},
        {"host": "127.0.0.1:8080", "origin": "http://localhost.evil.example"},
        {"host": "127.0.0.1.evil.example:8080"},
    ],
)
def test_other_sites_are_not(headers: dict[str, str]) -> None:
    with pytest.raises(HttpError) as refused:
        check_origin(scope(**headers), on_loopback=True)
    assert refused.value.status == 403


def test_behind_a_name_of_its_own_only_the_origin_counts() -> None:
    check_origin(scope(host="gateway.example", origin="https://gateway.example"), on_loopback=False)
    with pytest.raises(HttpError):
        check_origin(scope(host="gateway.example", origin="https://evil.example"), on_loopback=False)
