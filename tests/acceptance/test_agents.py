"""Agents on real processes: every dialect's strict upstream, a real MCP server, approvals across a restart, SIGKILL at every turn."""

import html
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from over_upstreams import MODELS, PRICE
from services import wait_until
from upstreams.control import Fault
from upstreams.serve import RemoteControl, upstream_process

TURNS = 10
COUNTING = Path(__file__).parents[1] / "counting_tool.py"
DOCUMENTS = {"command": sys.executable, "args": ["-P", "-m", "mcp_bridge.documents"]}
SEARCH = {"name": "web_search", "arguments": {"query": "tea"}}
MANY: dict[str, Any] = {
    "tool_calls": [
        SEARCH,
        {"name": "web_search", "arguments": {"query": "lighthouses"}},
        {"name": "read_document", "arguments": {"path": "nowhere.md"}},
        {"name": "web_serch", "arguments": {}},
        {"name": "web_search", "arguments": "{broken"},
        {"name": "web_search", "arguments": {"count": "many"}},
        {
            "name": "web_search",
            "arguments": '{"query": ' + "[" * 199 + "]" * 199 + "}",
        },  # 200 levels, and one with its row
    ]
}
SIMULATED: dict[str, Any] = {
    "researcher": {"script": [{"tool_calls": [SEARCH]}, {"reply": "Tea is old."}]},
    "clumsy": {"script": [MANY, {"reply": "Done."}], "input": 1, "output": 2},
    "restless": {"script": [{"tool_calls": [SEARCH]}], "input": 1, "output": 2},
}
PROMPT = {
    name: 'use tool web_search with {"query": "tea"} and use tool web_search with {"query": "lighthouses"}'
    for name in MODELS
}


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, RemoteControl]]:
    with upstream_process() as upstreams:
        yield upstreams


def config(upstreams: dict[str, RemoteControl]) -> dict[str, Any]:
    kinds = {
        name: {
            "type": name,
            "base_url": control.base_url,
            "prices": PRICE,
            **({} if name == "ollama" else {"api_key": "test-key"}),
        }
        for name, control in upstreams.items()
    }
    return {
        "providers": {**kinds, "sim": {"type": "simulated", "models": SIMULATED}},
        "models": {"either": {"targets": [MODELS["anthropic"], MODELS["openai"]]}},
        "mcp_servers": {"documents": DOCUMENTS},
    }


@pytest.fixture(scope="module")
def up(upstreams: dict[str, RemoteControl], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("agents"), config(upstreams)) as up:
        up.serve(workers=1)
        yield up


def agent(**fields: Any) -> dict[str, Any]:
    step = {"id": "research", "type": "agent", "prompt": "go", "tools": ["documents/*"], **fields}
    return {"name": "inline", "steps": [step]}


def outcome(up: Gateway, **fields: Any) -> dict[str, Any]:
    return up.finished(up.submit(agent(**fields), {}))


def test_the_shipped_example(up: Gateway) -> None:
    run = up.finished(up.submit("agent-with-tools", {"question": "What is tea?", "model": "sim/researcher"}))
    assert run["output"] == {"answer": "Tea is old.", "cost_usd": 0}, run["error"]
    call = up.steps(run["id"])["research[0].web_search"]
    assert call["call"] == {"name": "web_search", "tool": "documents/web_search", "arguments": {"query": "tea"}}
    assert call["output"][0]["url"] == "tea.md"
    page = up.http.get(f"/dashboard/runs/{run['id']}").text
    assert "research[0].web_search" in page and "documents/web_search" in page


@pytest.mark.parametrize(  # OpenAI gives no thoughts to be given back
    ("dialect", "think"), [*((name, False) for name in sorted(MODELS)), ("anthropic", True), ("ollama", True)]
)
def test_each_dialect_takes_the_history_of_tools(
    up: Gateway, upstreams: dict[str, RemoteControl], dialect: str, think: bool
) -> None:
    upstreams[dialect].reset()
    thinking = {"reasoning_effort": "high"} if think else {}
    prompt = PROMPT[dialect] + (" [think 3]" if think else "")
    run = outcome(up, model=MODELS[dialect], prompt=prompt, system="Be brief.", **thinking)
    assert run["status"] == "succeeded", run["error"]
    first, second = run["output"].find("history of tea"), run["output"].find("lighthouse")
    assert run["output"].startswith("The tool said:") and 0 < first < second  # results in the order of the calls
    steps = up.steps(run["id"])
    assert [key for key in steps if "web_search" in key] == ["research[0].web_search", "research[0].web_search_2"]
    assert upstreams[dialect].state()["total"] == 2
    assert round(run["cost_usd"] * 10**12) == upstreams[dialect].state()["bill_picousd"]
    assert sum(step["cost_usd"] for step in steps.values()) == pytest.approx(run["cost_usd"])


def test_an_agent_may_change_the_provider_between_turns(up: Gateway, upstreams: dict[str, RemoteControl]) -> None:
    """The second turn falls over from Anthropic to OpenAI, which refuses signed thoughts."""
    upstreams["anthropic"].script(None, Fault("status", status=529))
    prompt = PROMPT["openai"] + " [think 3]"
    run = outcome(up, model="either", prompt=prompt, reasoning_effort="high")
    assert run["status"] == "succeeded", run["error"]
    steps = up.steps(run["id"])
    assert steps["research[0].model"]["output"]["thinking_blocks"]
    assert [steps[f"research[{turn}].model"]["model"] for turn in range(2)] == [MODELS["anthropic"], MODELS["openai"]]


@pytest.mark.parametrize("dialect", sorted(MODELS))
def test_a_schema_is_kept_with_one_repair(up: Gateway, dialect: str) -> None:
    schema = {
        "type": "object",
        "required": ["n"],
        "additionalProperties": False,
        "properties": {"n": {"type": "integer"}},
    }
    run = outcome(up, model=MODELS[dialect], prompt=PROMPT[dialect], schema=schema)
    assert run["output"] == {"n": 1}, run["error"]
    calls = [call for attempt in up.steps(run["id"])["research[1].model"]["attempts"] for call in attempt["calls"]]
    assert len(calls) == 2  # the text that the upstream gives at first is no JSON


def test_what_goes_wrong_with_calls_is_told_to_the_model(up: Gateway) -> None:
    run = outcome(up, model="sim/clumsy")
    assert (run["status"], run["output"]) == ("succeeded", "Done.")
    steps = up.steps(run["id"])
    failed = {key: step["error"] for key, step in steps.items() if step["status"] == "failed"}
    assert {key: error["class"] for key, error in failed.items()} == {
        "research[0].read_document": "tool_error",
        "research[0].web_serch": "invalid_request",
        "research[0].web_search_3": "invalid_request",
        "research[0].web_search_4": "invalid_request",
        "research[0].web_search_5": "invalid_request",
    }
    assert "did you mean web_search?" in failed["research[0].web_serch"]["message"]
    assert all("JSON object" in failed[f"research[0].web_search_{number}"]["message"] for number in (3, 5))
    assert "arguments.count has to be integer" in failed["research[0].web_search_4"]["message"]


def test_the_limits_of_an_agent(up: Gateway) -> None:
    turns = outcome(up, model="sim/restless", max_turns=3)
    assert turns["error"]["class"] == "invalid_output" and "max_turns=3" in turns["error"]["message"]
    assert Counter(key.rpartition(".")[2] for key in up.steps(turns["id"])) == {
        "research": 1,
        "model": 3,
        "web_search": 2,
    }
    money = outcome(up, model="sim/restless", max_turns=1000, max_cost_usd=0.0009)
    assert (money["error"]["class"], money["error"]["step"][:9]) == ("budget_exceeded", "research[")
    assert "max_cost_usd 0.0009" in money["error"]["message"] and 0 < money["cost_usd"] <= 0.0009
    paused = up.submit({**agent(model="sim/restless", max_turns=1000), "budget_usd": 0.0009}, {})
    wait_until(lambda: up.http.get(f"/v1/runs/{paused}").json()["status"] == "paused", "the run pauses", 20)
    before = len(up.steps(paused))
    assert up.http.post(f"/v1/runs/{paused}/resume", json={"budget_usd": 0.002}).status_code == 202
    wait_until(lambda: len(up.steps(paused)) > before, "the run goes on", 20)
    wait_until(lambda: up.http.get(f"/v1/runs/{paused}").json()["status"] == "paused", "the run pauses again", 20)
    assert up.http.post(f"/v1/runs/{paused}/cancel").status_code == 202


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": ["documents/web_serch"]}, "did you mean web_search"),
        ({"approve": ["documents/web_serch"], "tools": ["documents/*"]}, "did you mean documents/web_search?"),
    ],
)
def test_a_tool_that_is_not_there_fails_the_step(up: Gateway, fields: dict[str, Any], message: str) -> None:
    run = outcome(up, model="sim/restless", **fields)
    assert (run["error"]["class"], run["error"]["step"]) == ("invalid_request", "research")
    assert message in run["error"]["message"]


def test_unknown_names_are_errors_at_submission(up: Gateway) -> None:
    definition = agent(model="nobody/x", tools=["document/*"])
    answer = up.http.post("/v1/runs", json={"workflow": definition})
    paths = [detail["path"] for detail in answer.json()["error"]["details"]]
    assert (answer.status_code, paths) == (400, ["steps.research.model", "steps.research.tools[0].server"])
    stored = up.http.put("/v1/workflows/unknown-names", json={**definition, "name": "unknown-names"})
    assert stored.status_code == 201 and "document" in stored.text


def test_an_approval_survives_a_restart(upstreams: dict[str, RemoteControl], tmp_path: Path) -> None:
    with gateway(tmp_path / "approvals", config(upstreams)) as up:
        up.serve(workers=1)
        fields = {"model": MODELS["openai"], "prompt": PROMPT["openai"], "approve": ["documents/web_search"]}
        run_id = up.submit(agent(**fields), {})
        keys = ["research[0].web_search", "research[0].web_search_2"]

        def both_wait() -> bool:
            steps = up.steps(run_id)
            return all(steps.get(key, {}).get("waits_for") == "signal:approve" for key in keys)

        wait_until(both_wait, "both calls wait", 20)
        assert up.http.get(f"/v1/runs/{run_id}").json()["status"] == "waiting"
        for pid in [*up.worker_pids(), up.processes[-1].pid]:
            os.kill(pid, signal.SIGKILL)
        up.processes[-1].wait(10)
        up.serve(workers=1)
        assert both_wait() and up.steps(run_id)[keys[1]]["call"]["arguments"] == {"query": "lighthouses"}
        buttons = [value for value in payloads(up.http.get(f"/dashboard/runs/{run_id}").text) if value["approved"]]
        assert buttons == [{"call": key, "approved": True} for key in keys]
        path = f"/v1/runs/{run_id}/signals/approve"
        unnamed = up.http.post(path, json={"approved": True})
        assert (unnamed.status_code, keys[1] in unnamed.json()["error"]["message"]) == (409, True)
        wrong = up.http.post(path, json={"call": keys[0], "approved": "yes"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "payload.approved")
        assert up.http.post(path, json={"call": keys[0], "approved": True}).status_code == 202
        assert up.http.post(path, json={"approved": False, "reason": "no light"}).status_code == 202
        run = up.finished(run_id)
        assert "history of tea" in run["output"] and run["output"].endswith("The call was not approved: no light")
        steps = up.steps(run_id)
        assert [steps[key]["status"] for key in keys] == ["succeeded", "skipped"]
        assert [len(call["calls"]) for call in steps[keys[1]]["attempts"]] == [0]


def payloads(page: str) -> list[dict[str, Any]]:
    """What the buttons of a run's page send as signals."""
    return [json.loads(html.unescape(value)) for value in re.findall(r'name="payload" value="([^"]+)"', page)]


def holder(up: Gateway, run_id: str) -> int:
    """The process that runs the run's step now."""
    running = [one for step in up.steps(run_id).values() for one in step["attempts"] if one["status"] == "running"]
    told = [
        json.loads(line) for line in (up.folder / "serve-0.log").read_text().splitlines() if "worker started" in line
    ]
    return next(line["pid"] for line in told if line["worker"] == running[0]["worker"])


def test_sigkill_at_every_turn_pays_only_for_what_was_in_flight_again(
    upstreams: dict[str, RemoteControl], tmp_path: Path
) -> None:
    """Ten turns: in every other one the worker is killed while the question is being answered, in the others while the tool runs."""
    control, log = upstreams["openai"], tmp_path / "notes"
    control.reset()
    log.touch()
    in_question, in_tool = [0, 2, 4, 6, 8, 9], [1, 3, 5, 7]
    control.script(*(fault for turn in range(TURNS) for fault in [Fault("hang"), None][turn not in in_question :]))
    held_calls = [str(turn + number + 1) for number, turn in enumerate(in_tool)]
    tool = {"command": sys.executable, "args": ["-S", "-P", str(COUNTING), str(log), *held_calls]}
    with gateway(tmp_path / "killed", {**config(upstreams), "mcp_servers": {"notes": tool}}) as up:
        up.serve(workers=2)
        prompt = f'[turns {TURNS - 1}] use tool note with {{"text": "x"}}'
        run_id = up.submit(agent(model=MODELS["openai"], prompt=prompt, tools=["notes/note"]), {})
        for turn in range(TURNS):
            questions = turn + 1 + sum(killed < turn for killed in in_question)
            calls = turn + sum(killed < turn for killed in in_tool)
            control.wait(lambda state, most=questions: state["total"] == most, 60)
            if turn in in_tool:
                wait_until(lambda most=calls: len(log.read_text().splitlines()) == most + 1, "the tool runs", 30)
            assert (control.state()["total"], calls) == (
                questions,
                len(log.read_text().splitlines()) - (turn in in_tool),
            )
            os.kill(holder(up, run_id), signal.SIGKILL)
        run = up.finished(run_id)
        assert run["output"] == "The tool said: noted 13", run["error"]
        assert control.state()["total"] == TURNS + len(in_question)
        assert len(log.read_text().splitlines()) == TURNS - 1 + len(in_tool)
        attempts = {key: [one["status"] for one in step["attempts"]] for key, step in up.steps(run_id).items()}
        killed = {f"research[{turn}].model" for turn in in_question} | {f"research[{turn}].note" for turn in in_tool}
        assert len(attempts) == 2 * TURNS
        assert {key for key, statuses in attempts.items() if statuses == ["lost", "succeeded"]} == killed
        assert all(statuses == ["succeeded"] for key, statuses in attempts.items() if key not in killed)
        assert run["cost_unknown_calls"] == len(killed)
        assert round(run["cost_usd"] * 10**12) == control.state()["bill_picousd"]
