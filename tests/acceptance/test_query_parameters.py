"""What a query string may hold, and methods that a path does not have: told in the one error shape, alike everywhere."""

from collections.abc import Iterator
from typing import Any

import pytest
from gateway import Gateway, gateway


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("home"), {}) as installed:
        installed.serve(workers=0)
        yield installed


def refused(up: Gateway, path: str) -> dict[str, Any]:
    answer = up.http.get(path)
    assert answer.status_code == 400, (path, answer.text)
    assert set(answer.json()["error"]) >= {"message", "type", "code", "param"}
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/v1/runs?limt=5", "limit"),
        ("/v1/runs?workflw=x", "workflow"),
        ("/v1/spend?groupby=day", "group_by"),
        ("/v1/spend.csv?sinse=2026-01-01", "since"),
        ("/v1/requests?modell=x", "model"),
        ("/v1/requests.csv?knd=chat", "kind"),
        ("/v1/keys?cursr=x", "cursor"),
        ("/v1/budgets?limits=1", "limit"),
        ("/v1/runs/00000000-0000-0000-0000-000000000000?wiat=1", "wait"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(up: Gateway, path: str, near: str) -> None:
    error = refused(up, path)
    assert f"`{near}`" in error["message"] and error["param"] == path.partition("?")[2].partition("=")[0]


def test_a_key_where_none_is_known_is_refused_too(up: Gateway) -> None:
    assert "known here: none" in refused(up, "/v1/models?zzz=1")["message"]
    assert up.http.post("/v1/messages/count_tokens?beta=true", json={"model": "simulated/echo", "messages": [
        {"role": "user", "content": "x"}]}).status_code == 200  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/runs", "/v1/requests", "/v1/keys", "/v1/budgets"])
def test_a_cursor_that_no_page_told_is_refused(up: Gateway, path: str) -> None:
    for cursor in ("garbage", "", "zzzzzzzz-0000-0000-0000-000000000000", "a' OR 1=1"):
        error = up.http.get(path, params={"cursor": cursor})
        assert error.status_code == 400 and error.json()["error"]["param"] == "cursor", cursor
    assert up.http.get(path, params={"cursor": "019a0000-0000-7000-8000-000000000000"}).json()["data"] == []


def test_the_ledger_is_narrowed_by_kind(up: Gateway) -> None:
    talk = {"model": "simulated/echo", "messages": [{"role": "user", "content": "x"}]}
    assert up.http.post("/v1/chat/completions", json=talk).status_code == 200
    assert len(up.http.get("/v1/requests", params={"kind": "chat"}).json()["data"]) == 1
    assert up.http.get("/v1/requests", params={"kind": "tool"}).json()["data"] == []
    assert refused(up, "/v1/requests?kind=chatt")["param"] == "kind"
    lines = up.http.get("/v1/requests.csv", params={"kind": "embeddings"}).text.splitlines()
    assert len(lines) == 1 and "saved_usd" in lines[0]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/runs", "/v1/models"])
def test_a_method_that_a_path_does_not_have(up: Gateway, path: str) -> None:
    for method in ("PATCH", "DELETE", "PROPFIND"):
        answer = up.http.request(method, path)
        assert answer.status_code == 405, (method, path, answer.text)
        assert method in answer.json()["error"]["message"] and answer.headers["allow"]
