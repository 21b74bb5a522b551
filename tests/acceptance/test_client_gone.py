"""A client that leaves: its upstream call is cancelled, or drained, by setting; it is booked either way, in each dialect."""

from collections.abc import Iterator
from typing import Any

import pytest
from over_upstreams import MODELS, Stand, stand
from services import wait_until
from upstreams.control import Fault

ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "[words 12]"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "[words 12]"}], "max_tokens": 100},
    "/v1/responses": {"input": "[words 12]"},
}


@pytest.fixture(scope="module", params=["cancel", "drain"])
def up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Stand]]:
    with stand(tmp_path_factory.mktemp("home"), on_client_disconnect=request.param) as standing:
        yield request.param, standing


def settled(standing: Stand, request_id: str) -> dict[str, Any]:
    wait_until(lambda: standing.rows(request_id)[0]["finished_at"] is not None, "the row is settled", 10)
    return standing.rows(request_id)[0]


@pytest.mark.parametrize("dialect", sorted(MODELS))
@pytest.mark.parametrize("route", sorted(ROUTES))
def test_in_mid_stream(up: tuple[str, Stand], route: str, dialect: str) -> None:
    setting, standing = up
    control = standing.upstreams[dialect]
    control.script(Fault("slow", delay_s=0.1))
    body = {"model": MODELS[dialect], "stream": True, **ROUTES[route]}
    with standing.gateway.http.stream("POST", route, json=body) as answer:
        seen = b""
        for piece in answer.iter_bytes():
            seen += piece
            if b"w1" in seen:
                break
    state = control.wait(lambda state: state["running"] == 0)
    row = settled(standing, answer.headers["x-request-id"])
    if setting == "cancel":
        assert state["calls"][-1]["outcome"] == "client_gone"
        assert not row["success"] and row["error_class"] == "cancelled" and row["cost_source"] == "estimated"
        assert "the caller left" in row["error"], row
    else:
        assert state["calls"][-1]["outcome"] == "slow"
        assert row["success"] and row["completion_tokens"] == 12 and row["cost_source"] == "priced"


@pytest.mark.parametrize(
    ("route", "dialect", "more", "fault"),
    [
        ("/v1/messages", "anthropic", {"stream": True}, Fault("delay", delay_s=0.5)),
        ("/v1/messages", "anthropic", {}, Fault("delay", delay_s=0.5)),
        ("/v1/chat/completions", "openai", {}, Fault("delay", delay_s=0.5)),
        ("/v1/responses", "ollama", {}, Fault("delay", delay_s=0.5)),
        ("/v1/chat/completions", "openai", {"stream": True}, Fault("slow", delay_s=0.05)),
    ],
)
def test_before_anything_has_gone_out(
    up: tuple[str, Stand], route: str, dialect: str, more: dict[str, Any], fault: Fault
) -> None:
    """A plain answer, a stream without its first content, or one whose beginning is held back."""
    setting, standing = up
    control = standing.upstreams[dialect]
    control.script(fault)
    before = control.state()["total"]
    body = {"model": MODELS[dialect], **ROUTES[route], **more}
    with pytest.raises(Exception, match="timed out"):
        standing.gateway.http.post(route, json=body, timeout=0.2, headers={"x-aigateway-hold-back": "1h"})
    state = control.wait(lambda state: state["total"] == before + 1 and state["running"] == 0)
    row = settled(standing, standing.newest()["request_id"])
    outcome = state["calls"][-1]["outcome"]
    assert (outcome, row["success"]) == (("client_gone", False) if setting == "cancel" else (fault.kind, True))
    assert fault.kind == "delay" or row["cost_source"] == ("estimated" if setting == "cancel" else "priced")
