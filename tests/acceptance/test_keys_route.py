"""API keys, their limits and budgets on a real `aigateway serve` that requires a key, with OpenAI's own client."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from gateway import Gateway, gateway
from receiver import Receiver
from services import PostgresServer, wait_until

CONFIG: dict[str, Any] = {
    "server": {"auth": "required"},
    "providers": {
        "sim": {
            "type": "simulated",
            "models": {
                "echo": {},
                # 0.001 USD a token
                "dear": {"reply": "dear words", "input": 1000, "output": 1000, "tokens_in": 10, "tokens_out": 10},
                "slow": {"reply": "slow", "delay": "3s"},
            },
        },
    },
    "models": {"fast": "sim/echo"},
}
SAY = [{"role": "user", "content": "hello"}]
ASK_DEAR = "name: ask_dear\nsteps: [{id: ask, type: llm, model: sim/dear, prompt: hi, max_tokens: 400}]\noutput: ${steps.ask.output}\n"


class Guarded:
    """A gateway that needs keys, and the key that may make others."""

    def __init__(self, installed: Gateway, secret: str) -> None:
        self.gateway = installed
        self.admin = secret
        self.http = httpx2.Client(base_url=installed.url, timeout=60, trust_env=False, headers=bearer(secret))

    def key(self, name: str, **limits: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/keys", json={"name": name, **limits})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def client(self, secret: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=secret, max_retries=0)

    def say(self, secret: str, model: str = "fast", **more: Any) -> Any:
        with self.client(secret) as client:
            return client.chat.completions.create(model=model, messages=SAY, **more)  # pyright: ignore

    def budget(self, name: str) -> dict[str, Any]:
        return next(one for one in self.http.get("/v1/budgets?limit=200").json()["data"] if one["name"] == name)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def up(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    environment: dict[str, str] = {}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.execute("CREATE DATABASE keys_route")
        environment["AIGATEWAY_DATABASE_URL"] = server.url("keys_route")
    with gateway(tmp_path_factory.mktemp("home"), CONFIG, **environment) as installed:
        installed.serve()
        made = installed.run("keys", "create", "boss", "--json")
        assert made.returncode == 0, made.stderr
        guarded = Guarded(installed, json.loads(made.stdout)["key"])
        assert guarded.http.put("/v1/workflows/ask_dear", content=ASK_DEAR).status_code == 201
        yield guarded
        guarded.http.close()


def test_the_start_says_how_the_first_key_is_made_and_it_opens_the_door(up: Guarded) -> None:
    assert "need an API key and there is none yet" in up.gateway.logs()
    assert up.say(up.admin).choices[0].message.content == "hello"
    row = up.http.get("/v1/requests?limit=1").json()["data"][0]
    boss = next(key for key in up.http.get("/v1/keys").json()["data"] if key["name"] == "boss")
    assert (row["key_id"], boss["admin"]) == (boss["id"], True)
    assert "key" not in boss
    assert up.admin.startswith(boss["prefix"])


@pytest.mark.parametrize("headers", [{}, bearer("sk-nobody"), bearer("agw-" + "x" * 43), {"x-api-key": "no"}])
def test_without_a_key_that_holds_nothing_is_told_but_health(up: Guarded, headers: dict[str, str]) -> None:
    for path in ("/v1/models", "/v1/keys", "/metrics", "/dashboard", "/docs", "/v1/nothing"):
        answer = httpx2.get(f"{up.gateway.url}{path}", headers=headers, trust_env=False)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["www-authenticate"] == "Bearer"
    answer = httpx2.post(f"{up.gateway.url}/v1/messages", headers=headers, json={}, trust_env=False)
    assert (answer.status_code, answer.json()["type"]) == (401, "error")
    assert answer.json()["error"]["type"] == "authentication_error"
    assert httpx2.get(f"{up.gateway.url}/health", headers=headers, trust_env=False).status_code == 200


def test_openais_client_sees_its_own_error_for_a_wrong_key(up: Guarded) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        up.say("sk-wrong")
    assert refused.value.code == "invalid_api_key"


def test_a_browser_is_asked_for_a_password_which_is_the_key(up: Guarded) -> None:
    asked = {"sec-fetch-mode": "navigate", "sec-fetch-site": "none"}
    answer = httpx2.get(f"{up.gateway.url}/dashboard", headers=asked, trust_env=False)
    assert answer.headers["www-authenticate"].startswith("Basic ")
    login = httpx2.BasicAuth("anyone", up.admin)
    page = httpx2.get(f"{up.gateway.url}/dashboard", headers=asked, auth=login, trust_env=False)
    assert page.status_code == 200
    foreign = {"sec-fetch-mode": "no-cors", "sec-fetch-site": "cross-site"}
    assert httpx2.post(f"{up.gateway.url}/v1/keys", headers=foreign, auth=login, trust_env=False).status_code == 401


def test_a_key_may_be_shown_as_anthropics_clients_do(up: Guarded) -> None:
    headers = {"x-api-key": up.admin}
    assert httpx2.get(f"{up.gateway.url}/v1/models", headers=headers, trust_env=False).status_code == 200


def test_a_revoked_key_is_out_within_two_seconds(up: Guarded) -> None:
    made = up.key("leaver")
    secret = made["key"]
    up.say(secret)
    # Revoked behind the server's back, as another process would do it.
    with_database = up.gateway.run("keys", "revoke", "leaver")
    assert with_database.returncode == 0, with_database.stderr
    nobody = up.gateway.run("keys", "revoke", "nobody")  # failed, not misused: the same as over HTTP
    assert (nobody.returncode, nobody.stderr) == (1, "aigateway: there is no key nobody\n")

    def refused() -> bool:
        answer = httpx2.get(f"{up.gateway.url}/v1/models", headers=bearer(secret), trust_env=False)
        return answer.status_code == 401 and "was revoked" in answer.json()["error"]["message"]

    wait_until(refused, "the revoked key is refused", 2.0)
    assert up.http.delete(f"/v1/keys/{made['id']}").json()["revoked_at"] is not None
    assert up.http.delete("/v1/keys/nobody").status_code == 404


def test_a_model_that_the_key_may_not_use_is_forbidden_in_chat_and_in_runs(up: Guarded) -> None:
    secret = up.key("picky", allowed_models=["fast", "other/*"])["key"]
    up.say(secret)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        up.say(secret, "sim/dear")
    assert (refused.value.code, refused.value.param) == ("model_not_allowed", "model")
    assert refused.value.response.headers["x-should-retry"] == "false"
    answer = httpx2.post(
        f"{up.gateway.url}/v1/workflow/ask_dear", headers=bearer(secret), json={}, trust_env=False, timeout=30
    )
    assert answer.status_code == 502
    assert "may not use sim/dear" in answer.json()["error"]["message"]


def test_a_key_with_limits_cannot_lift_them(up: Guarded) -> None:
    secret = up.key("limited", budget_usd=1)["key"]
    for method, path, body in (
        ("POST", "/v1/keys", {"name": "more"}),
        ("GET", "/v1/keys", None),
        ("DELETE", "/v1/keys/boss", None),
        ("PUT", "/v1/budgets", {"name": "key-x", "limit_usd": 99}),
    ):
        answer = httpx2.request(method, f"{up.gateway.url}{path}", headers=bearer(secret), json=body, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_key_required"), path
    assert up.key("granted", budget_usd=1, admin=True)["admin"] is True
    again = up.http.post("/v1/keys", json={"name": "granted"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "key_exists")


def test_a_call_that_does_not_fit_is_402_and_says_when_the_budget_resets(up: Guarded) -> None:
    made = up.key("poor", budget_usd="0.5", budget_period="day")
    up.say(made["key"], "sim/dear", max_tokens=100)
    with pytest.raises(openai.APIStatusError) as refused:
        up.say(made["key"], "sim/dear", max_tokens=490)
    error = refused.value
    assert (error.status_code, error.code) == (402, "budget_exceeded")
    assert error.response.headers["x-should-retry"] == "false"
    assert "daily limit reached" in error.message
    assert "resets tomorrow, at 20" in error.message
    up.say(made["key"])  # a free call always fits
    budget = up.budget(f"key-{made['id']}")
    assert (budget["spent_usd"], budget["reserved_usd"], budget["remaining_usd"]) == (0.02, 0.0, 0.48)
    assert budget["resets_at"].endswith("T00:00:00.000000Z")


def test_a_budget_stops_streams_before_they_begin(up: Guarded) -> None:
    secret = up.key("streamer", budget_usd="0.01")["key"]
    with pytest.raises(openai.APIStatusError) as refused:
        up.say(secret, "sim/dear", stream=True, max_tokens=50)
    assert refused.value.status_code == 402
    assert "monthly limit reached" in refused.value.message


def test_too_many_requests_are_429_and_say_when_there_is_room(up: Guarded) -> None:
    secret = up.key("slowly", requests_per_minute=2)["key"]
    up.say(secret)
    up.say(secret)
    with pytest.raises(openai.RateLimitError) as refused:
        up.say(secret)
    headers = refused.value.response.headers
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(headers["retry-after"]) <= 60
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert "x-should-retry" not in headers


def test_tokens_and_parallel_requests_are_limited_too(up: Guarded) -> None:
    secret = up.key("tokens", tokens_per_minute=150)["key"]
    up.say(secret, "sim/dear", max_tokens=20)
    with pytest.raises(openai.RateLimitError) as refused:
        up.say(secret, "sim/dear", max_tokens=140)
    assert refused.value.response.headers["x-ratelimit-remaining-tokens"] == "130"
    with pytest.raises(openai.RateLimitError, match="tokens"):
        up.say(secret, "sim/dear")  # no limit of its own: 4096 are assumed
    up.say(secret, "sim/dear", max_tokens=50)
    made = up.key("one-by-one", max_parallel=1)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(up.say, made["key"], "sim/slow")
        newest = {"limit": 1}
        wait_until(
            lambda: up.http.get("/v1/requests", params=newest).json()["data"][0]["key_id"] == made["id"], "a call began"
        )
        with pytest.raises(openai.RateLimitError, match="1 requests at once"):
            up.say(made["key"])
        assert slow.result(30).choices[0].message.content == "slow"
    up.say(made["key"])


def test_a_run_over_its_keys_budget_pauses_and_goes_on_when_it_is_raised(up: Guarded) -> None:
    made = up.key("runner", budget_usd="0.1")
    answer = httpx2.post(
        f"{up.gateway.url}/v1/workflows/ask_dear/runs", headers=bearer(made["key"]), json={}, trust_env=False
    )
    run_id = answer.json()["id"]
    wait_until(lambda: up.http.get(f"/v1/runs/{run_id}").json()["status"] == "paused", "the run is paused")
    assert up.http.get(f"/v1/runs/{run_id}").json()["pause_reason"] == "budget_exceeded"
    raised = up.http.put("/v1/budgets", json={"name": f"key-{made['id']}", "limit_usd": 3})
    assert (raised.status_code, raised.json()["origin"], raised.json()["scope"]) == (200, "key", "key")
    assert up.http.post(f"/v1/runs/{run_id}/resume").status_code == 202
    run = up.http.get(f"/v1/runs/{run_id}?wait=30").json()
    assert (run["status"], run["output"]) == ("succeeded", "dear words")
    rows = up.http.get(f"/v1/requests?run={run_id}").json()["data"]
    assert {row["key_id"] for row in rows} == {made["id"]}
    assert up.budget(f"key-{made['id']}")["spent_usd"] == 0.02


def test_runs_of_a_key_that_may_do_one_thing_at_a_time_wait_for_each_other(up: Guarded) -> None:
    made = up.key("patient", max_parallel=1)
    slow = {"name": "slow", "steps": [{"id": "ask", "type": "llm", "model": "sim/slow", "prompt": "hi"}]}
    with httpx2.Client(base_url=up.gateway.url, headers=bearer(made["key"]), trust_env=False) as http:
        runs = [http.post("/v1/runs", json={"workflow": slow}).json()["id"] for _ in range(2)]
    ended = [up.http.get(f"/v1/runs/{run_id}?wait=30").json() for run_id in runs]
    assert [run["status"] for run in ended] == ["succeeded"] * 2, ended
    steps = [up.http.get(f"/v1/runs/{run_id}/steps").json()["data"][0] for run_id in runs]
    assert sorted(len(step["attempts"]) > 1 for step in steps) == [False, True]
    assert all(len(step["attempts"][-1]["calls"]) == 1 for step in steps)


def test_budgets_are_set_and_replaced_over_http(up: Guarded) -> None:
    up.say(up.admin, "sim/dear", max_tokens=20)
    one = {
        "name": "by-model",
        "limit_usd": 0.03,
        "period": "day",
        "scope": "model",
        "match": "sim/dear",
        "zone": "Asia/Tokyo",
    }
    answer = up.http.put("/v1/budgets", json=[one, {"name": "wide", "limit_usd": 1000, "period": "total"}])
    assert answer.status_code == 200, answer.text
    by_model = up.budget("by-model")
    assert (by_model["origin"], by_model["match"], by_model["resets_at"][11:16]) == ("http", "sim/dear", "15:00")
    assert by_model["spent_usd"] >= 0.02  # what was spent before it was set counts
    with pytest.raises(openai.APIStatusError, match="by-model"):
        up.say(up.admin, "sim/dear", max_tokens=20)
    assert up.http.put("/v1/budgets", json=[]).json()["data"] == []
    up.say(up.admin, "sim/dear", max_tokens=20)
    mistaken: tuple[tuple[Any, str | None], ...] = (
        ({**one, "match": None}, "match"),
        ({**one, "zone": "Mars"}, "zone"),
        ({**one, "limit_usd": -1}, "limit_usd"),
        ({**one, "perod": "day"}, "perod"),
        ([one, {**one, "scope": "tag:a"}], "[1].scope"),
        ([one, 3], "[1]"),
        ("by-model", None),
    )
    for wrong, param in mistaken:
        answer = up.http.put("/v1/budgets", json=wrong)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"] == param, error
        assert len(error.get("details", [])) <= 1  # of the form that was meant alone


def test_the_commands_work_over_http_with_a_key(up: Guarded) -> None:
    environment = {"AIGATEWAY_URL": up.gateway.url, "AIGATEWAY_API_KEY": up.admin}
    up.gateway.environment.update(environment)
    try:
        made = up.gateway.run("keys", "create", "by-command", "--model", "fast", "--budget-usd", "2", "--json")
        listed = up.gateway.run("keys", "list", "--json")
        gone = up.gateway.run("keys", "revoke", "by-command")
    finally:
        for name in environment:
            del up.gateway.environment[name]
    assert made.returncode == listed.returncode == gone.returncode == 0, (made.stderr, listed.stderr, gone.stderr)
    assert "database itself" not in made.stderr
    found = next(key for key in json.loads(listed.stdout)["data"] if key["name"] == "by-command")
    assert (found["allowed_models"], found["budget"]["limit_usd"], found["admin"]) == (["fast"], 2.0, False)


def test_on_loopback_an_unknown_key_is_ignored_and_a_known_one_counts(tmp_path: Path) -> None:
    receiver = Receiver(200)
    config = {
        **CONFIG,
        "server": {},
        "budgets": [{"name": "all", "limit_usd": 0.1, "period": "day", "alert_at": [0.15, 0.35, 1.0]}],
    }
    with receiver.listening(), gateway(tmp_path, {**config, "webhooks": {"alert_url": receiver.url}}) as installed:
        installed.environment["AIGATEWAY_SERVER__PORT"] = str(installed.port)  # whoever listens on the usual one
        made = json.loads(installed.run("keys", "create", "known", "--json").stdout)  # before any server runs
        installed.serve()
        guarded = Guarded(installed, made["key"])
        for secret in ("sk-whatever", made["key"]):
            guarded.say(secret, "sim/dear", max_tokens=20)
        rows = installed.http.get("/v1/requests").json()["data"]
        assert [row["key_id"] for row in rows] == [made["id"], None]
        wait_until(lambda: len(receiver.got) == 2, "both alerts came")
        told = [json.loads(body) for _, body in receiver.got]
        assert [(one["type"], one["data"]["name"]) for one in told] == [("budget.alert", "all")] * 2
        assert sorted(one["data"]["threshold"] for one in told) == [0.15, 0.35]
        assert all("webhook-signature" in headers for headers, _ in receiver.got)
        with pytest.raises(openai.APIStatusError):
            guarded.say(made["key"], "sim/dear", max_tokens=90)
        wait_until(lambda: len(receiver.got) == 3, "the first refusal is told")
        refusal = json.loads(receiver.got[2][1])["data"]
        assert (refusal["threshold"], refusal["refused"]) == (None, True)
        lines = [
            json.loads(line) for line in (tmp_path / "serve-0.log").read_text().splitlines() if line.startswith("{")
        ]
        logged = [line["about"] for line in lines if line["message"] == "budget alert"]
        assert [(told["name"], told["action"]) for told in logged] == [("all", "reject")] * 3
        assert not [line for line in lines if "exception" in line]
        guarded.http.close()


def test_a_public_address_starts_without_a_key_and_says_what_to_do(tmp_path: Path) -> None:
    with gateway(tmp_path, {}) as installed:
        installed.start("serve", "--host", "0.0.0.0", "--port", str(installed.port), "--workers", "0")
        installed.wait_until_up(0)
        assert installed.http.get("/v1/models").status_code == 401
        wait_until(lambda: "aigateway keys create NAME" in installed.logs(), "the way out is told")
        made = installed.run("keys", "create", "first")
        assert made.returncode == 0, made.stderr
        answer = installed.http.get("/v1/models", headers=bearer(made.stdout.strip()))
        assert answer.status_code == 200


def test_only_an_admin_key_reloads_the_configuration(up: Guarded) -> None:
    plain = up.key("no-admin", max_parallel=1)["key"]
    ask = f"{up.gateway.url}/v1/config/reload"
    codes = [httpx2.post(ask, headers=told).status_code for told in ({}, bearer(plain), bearer(up.admin))]
    assert codes == [401, 403, 200]


def test_tools_of_the_gateways_own_mcp_server_are_called_under_the_callers_key(up: Guarded) -> None:
    key = up.key("mcp-client")
    call = {"name": "ask_dear", "arguments": {}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    accept = {"accept": "application/json, text/event-stream"}
    refused = httpx2.post(f"{up.gateway.url}/mcp", json=message, headers=accept)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    told = httpx2.post(f"{up.gateway.url}/mcp", json=message, headers=accept | bearer(key["key"]), timeout=30)
    assert '"text":"dear words"' in told.text
    rows = up.http.get("/v1/requests", params={"limit": 5}).json()["data"]
    assert key["id"] in [row["key_id"] for row in rows]
    foreign = {**accept, **bearer(key["key"]), "origin": "https://elsewhere.example"}
    assert httpx2.post(f"{up.gateway.url}/mcp", json=message, headers=foreign).status_code == 403
