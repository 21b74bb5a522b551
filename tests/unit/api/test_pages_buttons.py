"""The pages' buttons: they steer the run, and only these pages can press them."""

import pytest
from stage import Stage
from starlette.testclient import TestClient

from engine.ports import Failed, OverBudget
from engine.states import ErrorClass
from engine.store.runs import get_run

ONE_STEP = "name: one\nsteps:\n  - {id: only, type: llm, model: local, prompt: hello}\n"
SAME = {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8080"}


def status(stage: Stage, run: str) -> str:
    row = stage.read(lambda tx: get_run(tx, run))
    assert row is not None
    return row["status"]


def press(browser: TestClient, run: str, action: str, **fields: str) -> None:
    answer = browser.post(f"/dashboard/runs/{run}/{action}", data=fields, headers=SAME)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"/dashboard/runs/{run}"


def test_pause_resume_cancel(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(ONE_STEP)
    press(browser, run, "pause")
    assert status(stage, run) == "paused"
    assert "by a user" in browser.get(f"/dashboard/runs/{run}").text
    press(browser, run, "resume")
    assert status(stage, run) == "queued"
    assert len(stage.bell.rung) == 1
    press(browser, run, "cancel")
    assert status(stage, run) == "cancelled"


def test_retry_goes_on_from_the_failed_step(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(ONE_STEP)
    held = stage.claim(run)
    stage.complete(held, Failed(ErrorClass.AUTH, "the key is wrong", final=True))
    press(browser, run, "retry")
    assert status(stage, run) == "running"
    assert stage.bell.rung == [held.step_id]


def test_a_budget_stop_is_resumed_with_a_larger_budget(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(ONE_STEP, budget_picousd=10**11)
    stage.complete(stage.claim(run), OverBudget("the call can cost 1 USD"))
    page = browser.get(f"/dashboard/runs/{run}").text
    assert "does not fit into its budget" in page and 'name="budget_usd"' in page
    for wrong in ("-1", "NaN", "two", "1e99"):
        address = f"/dashboard/runs/{run}/resume"
        answer = browser.post(address, data={"budget_usd": wrong}, headers=SAME)
        assert answer.status_code == 400 and "must be an amount" in answer.text
        assert status(stage, run) == "paused"
    press(browser, run, "resume", budget_usd="2.50")
    row = stage.read(lambda tx: get_run(tx, run))
    assert row is not None and row["budget_picousd"] == 25 * 10**11


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8080", "sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:9090"},
    ],
)
def test_another_site_cannot_press(stage: Stage, browser: TestClient, headers: dict[str, str]) -> None:
    run = stage.submit(ONE_STEP)
    for address in (f"/dashboard/runs/{run}/cancel", "/dashboard/mcp/check"):
        answer = browser.post(address, headers=headers)
        assert answer.status_code == 403 and "cross_origin" in answer.text
    assert status(stage, run) == "queued"


def test_plain_http_between_machines_has_an_origin_alone(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(ONE_STEP)
    answer = browser.post(f"/dashboard/runs/{run}/cancel", headers={"origin": "http://127.0.0.1:8080"})
    assert answer.status_code == 303
    assert status(stage, run) == "cancelled"


def test_what_cannot_be_done_is_a_page_that_says_why(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(ONE_STEP)
    press(browser, run, "cancel")
    answer = browser.post(f"/dashboard/runs/{run}/retry", headers=SAME)
    assert answer.status_code == 409 and "only a failed run can be retried" in answer.text
    assert browser.post(f"/dashboard/runs/{run}/explode", headers=SAME).status_code == 404
    assert browser.post("/dashboard/runs/none/cancel", headers=SAME).status_code == 404
    large = browser.post(f"/dashboard/runs/{run}/resume", headers=SAME, content=b"x" * 70_000)
    assert large.status_code == 413


def test_the_mcp_button_asks_and_shows(stage: Stage, browser: TestClient) -> None:
    answer = browser.post("/dashboard/mcp/check", headers=SAME)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/mcp")
