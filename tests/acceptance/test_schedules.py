"""Schedules with a real `serve`: set over HTTP, by a definition and on the command line, and a workflow that starts by itself."""

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from services import wait_until

from engine.loader import load
from engine.workflows import read_folder

WORKFLOWS = Path(__file__).parents[2] / "workflows"
MINUTE_US = 60_000_000
GREET = "name: greet\ninputs: {name: {type: string}}\nsteps:\n  - {id: hi, type: set, value: 'Hello ${input.name}'}\n"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("schedules")
    documents = {"command": sys.executable, "args": ["-P", "-m", "mcp_bridge.documents"]}
    config: dict[str, Any] = {"models": {"local": "simulated/echo"}, "mcp_servers": {"documents": documents}}
    with gateway(folder, config) as up:
        up.serve(workers=2)
        assert up.http.put("/v1/workflows/greet", content=GREET).status_code == 201
        yield up


def make_due(up: Gateway, name: str, minutes: int = 0) -> None:
    """What the clock would do, at once: the schedule's own next time is moved back in the database."""
    with closing(sqlite3.connect(up.folder / "aigateway.db", timeout=30)) as database:
        database.execute(
            "UPDATE schedules SET next_us = (CAST(unixepoch() / 60 AS INTEGER) - ?) * ? WHERE name = ?",
            (minutes, MINUTE_US, name),
        )
        database.commit()


def fired(up: Gateway, name: str, times: int = 1) -> dict[str, Any]:
    """The schedule, once it has fired that often."""
    path = f"/v1/schedules/{name}"
    wait_until(lambda: up.http.get(path).json()["fired"] >= times, "it has fired", 20)
    return up.http.get(path).json()


def test_a_schedule_starts_runs_and_shows_its_times(up: Gateway) -> None:
    body = {
        "name": "often",
        "workflow": "greet",
        "cron": "* * * * *",
        "input": {"name": "you"},
        "tags": {"by": "clock"},
    }
    made = up.http.post("/v1/schedules", json=body)
    assert made.status_code == 201, made.text
    schedule = made.json()
    assert made.headers["location"] == f"/v1/schedules/{schedule['id']}"
    assert schedule["upcoming"][0] == schedule["next_at"] and len(schedule["upcoming"]) == 5
    assert up.http.post("/v1/schedules", json=body).status_code == 200
    make_due(up, "often")
    found = fired(up, "often")
    run = up.finished(found["last_run_id"])
    assert (run["output"], run["schedule"]["id"], run["tags"]) == ("Hello you", schedule["id"], {"by": "clock"})
    assert run["schedule"]["due_at"] == found["last_at"]
    first = up.http.get(f"/v1/runs/{run['id']}/events").json()["data"][0]
    assert (first["type"], first["data"]["schedule"]) == ("run.submitted", "often")
    listing = up.http.get("/v1/schedules", params={"workflow": "greet"}).json()
    assert (listing["object"], [each["name"] for each in listing["data"]], listing["next_cursor"]) == (
        "list",
        ["often"],
        None,
    )
    gone = up.http.delete("/v1/schedules/often")
    assert (gone.status_code, gone.json()["name"]) == (200, "often")
    assert up.http.get("/v1/schedules/often").status_code == 404


def test_a_schedule_is_paused_and_goes_on_with_its_next_time(up: Gateway) -> None:
    body = {"name": "held", "workflow": "greet", "cron": "* * * * *", "input": {"name": "you"}}
    assert up.http.post("/v1/schedules", json=body).json()["paused_at"] is None
    paused = up.http.post("/v1/schedules/held/pause").json()
    assert paused["paused_at"] is not None and (paused["next_at"], paused["upcoming"]) == (None, [])
    assert up.http.post("/v1/schedules/held/pause").json() == paused
    assert up.http.post("/v1/schedules", json=body).status_code == 200  # the same is still the same
    going_on = up.http.post("/v1/schedules/held/resume").json()
    assert (going_on["paused_at"], going_on["missed"], going_on["waiting"]) == (None, 0, 0)
    assert going_on["next_at"] == going_on["upcoming"][0]
    missing = up.http.post("/v1/schedules/hold/pause")
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "schedule")
    up.http.delete("/v1/schedules/held")


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"cron": "0 0 30 2 *"}, 400, "cron", "there is no day 30 in month 2"),
        ({"cron": "* * * *"}, 400, "cron", "has 4 fields"),
        ({"timezone": "Europe/Berln"}, 400, "timezone", "did you mean Europe/Berlin"),
        ({"workflow": "gret"}, 404, "workflow", "did you mean greet"),
        ({"input": {}}, 400, "input.name", "is required"),
        ({"input": {"name": 5}}, 400, "input.name", "has to be string"),
        ({"overlap": "both"}, 400, "overlap", "skip"),
        ({"catch_up": 101}, 400, "catch_up", "100"),
        ({"name": "a b"}, 400, "name", "must match"),
        ({"when": 1}, 400, "when", "unknown field"),
    ],
)
def test_bad_input_names_its_field(up: Gateway, change: dict[str, Any], status: int, param: str, words: str) -> None:
    body = {"name": "bad", "workflow": "greet", "cron": "@daily", "input": {"name": "you"}}
    answer = up.http.post("/v1/schedules", json=body | change)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    assert words in error["message"]
    assert up.http.get("/v1/schedules/bad").status_code == 404


def test_a_definition_brings_its_schedule_and_takes_it_away(up: Gateway) -> None:
    text = GREET.replace("greet", "timed").replace(
        "steps:", 'schedule: {cron: "* * * * *", input: {name: all}}\nsteps:'
    )
    assert up.http.put("/v1/workflows/timed", content=text).status_code == 201
    make_due(up, "timed:1")
    assert up.finished(fired(up, "timed:1")["last_run_id"])["output"] == "Hello all"
    refused = up.http.delete("/v1/schedules/timed:1")
    assert (refused.status_code, "definition" in refused.json()["error"]["message"]) == (409, True)
    broken = up.http.put("/v1/workflows/timed", content=text.replace('"* * * * *"', "0 0 30 2 *"))
    (mistake,) = broken.json()["error"]["details"]
    assert (mistake["path"], mistake["line"], mistake["column"]) == ("schedule.cron", 3, 18)
    assert up.http.delete("/v1/workflows/timed").status_code == 204
    assert up.http.get("/v1/schedules/timed:1").status_code == 404


def test_what_was_missed_is_made_up_and_what_failed_is_shown(up: Gateway) -> None:
    body = {"name": "late", "workflow": "greet", "cron": "* * * * *", "input": {"name": "you"}, "catch_up": 2}
    up.http.post("/v1/schedules", json=body)
    make_due(up, "late", minutes=30)
    found = fired(up, "late", 2)
    assert found["missed"] in (27, 28, 29)  # as the minute may end meanwhile
    up.http.delete("/v1/workflows/greet")
    make_due(up, "late")
    wait_until(lambda: up.http.get("/v1/schedules/late").json()["failed"] == 1, "the failure is told", 20)
    assert "there is no workflow 'greet'" in up.http.get("/v1/schedules/late").json()["error"]["message"]
    assert up.http.put("/v1/workflows/greet", content=GREET).status_code == 201


def test_daily_digest(up: Gateway) -> None:
    assert up.http.get("/v1/schedules/daily-digest:1").json()["next_at"] is None  # an example spends nothing by itself
    text = (WORKFLOWS / "daily-digest.yaml").read_text().replace("enabled: false", "enabled: true")
    assert up.http.put("/v1/workflows/daily-digest", content=text).status_code == 200
    shown = up.http.get("/v1/schedules/daily-digest:1").json()
    assert (shown["timezone"], shown["enabled"], len(shown["upcoming"])) == ("Europe/Berlin", True, 5)
    make_due(up, "daily-digest:1")
    run = up.finished(fired(up, "daily-digest:1")["last_run_id"])
    assert (run["status"], run["output"]["topics"]) == ("succeeded", 2), run["error"]
    assert "tides:" in run["output"]["digest"]
    assert {"look_up[0].search", "look_up[1].search", "write"} <= set(up.steps(run["id"]))


def test_the_command_line(up: Gateway) -> None:
    url = {"AIGATEWAY_URL": up.url}
    up.environment |= url
    made = up.run("schedules", "create", "greet", "--cron", "0 7 * * MON-FRI", "--timezone", "Europe/Berlin", "--name",
                  "mornings", "-i", "name=you", "--tag", "team:a", "--json")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["tags"] == {"team": "a"}
    assert up.run("schedules", "pause", "mornings").stdout.startswith("mornings is paused since 20")
    assert "\tpaused\t" in up.run("schedules", "list").stdout
    assert up.run("schedules", "resume", "mornings").stdout.startswith("mornings runs next at 20")
    listed = up.run("schedules", "list")
    assert (listed.returncode, "mornings\tgreet\t0 7 * * MON-FRI\tEurope/Berlin" in listed.stdout) == (0, True)
    assert json.loads(up.run("schedules", "list", "--json").stdout)["object"] == "list"
    wrong = up.run("schedules", "create", "greet", "--cron", "0 25 * * *", "-i", "name=you")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "cron: the hour '25' has to be made of 0-23" in wrong.stderr
    assert up.run("schedules", "create", "greet", "--cron", "@daily", "--tag", "x").returncode == 2
    assert up.run("schedules", "delete", "mornings").stdout.startswith("mornings (")
    assert up.run("schedules", "delete", "mornings").returncode == 1


def test_no_shipped_example_starts_by_itself() -> None:
    definitions, errors = read_folder(WORKFLOWS)
    assert not errors
    assert [name for name, found in definitions.items() if any(each.enabled for each in found.schedules)] == []
    assert load(GREET).schedules == ()
