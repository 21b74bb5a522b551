"""The dashboard in a real browser: what it shows, that it keeps itself fresh, and that it reaches for nothing from outside."""

import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from chromium import Chromium
from fastapi import FastAPI
from gateway import gateway
from services import wait_until
from stage import Stage

from api.metrics import routes as metric_routes
from api.pages.routes import routes as page_routes
from engine.ports import Listening, Succeeded
from engine.store.runs import get_run

TWO_STEPS = """
name: tea-report
steps:
  - {id: summarize, type: llm, model: local, prompt: hello, output: summary}
  - {id: report, type: llm, model: local, prompt: "${summary}"}
"""

ASKING = """
name: asking
steps:
  - {id: ask, type: wait, signal: approval, output: answer}
  - {id: then, type: llm, model: local, prompt: "${answer}"}
"""

# Each text's contrast with the nearest background that is painted: WCAG 2.1, relative luminance.
CONTRASTS = """
(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = color => numbers(color).slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const painted = color => numbers(color)[3] !== 0;
  const back = element => !element ? getComputedStyle(document.body).backgroundColor
    : painted(getComputedStyle(element).backgroundColor) ? getComputedStyle(element).backgroundColor
    : back(element.parentElement);
  const shown = [...document.querySelectorAll("body *")].filter(element => element.checkVisibility()
    && !element.closest("svg")
    && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return shown.map(element => {
    const [high, low] = [light(getComputedStyle(element).color), light(back(element))].sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), element.className, element.textContent.trim().slice(0, 40)];
  }).filter(([contrast]) => contrast < 4.5);
})()
"""

NESTED = """
name: nested
steps:
  - {id: one, type: set, value: 1}
  - {id: two, type: set, value: 2, needs: []}
  - id: both
    type: parallel
    needs: [one, two]
    branches:
      left: [{id: a, type: set, value: 1}, {id: b, type: set, value: 1}]
      right: [{id: c, type: set, value: 1}]
"""

# Boxes of steps that cover each other without one holding the other.
OVERLAPS = """
(() => {
  const boxes = [...document.querySelectorAll(".graph .node")].map(one => one.getBBox());
  const apart = (a, b) => a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y;
  const holds = (a, b) => a.x <= b.x && a.y <= b.y && a.x + a.width >= b.x + b.width && a.y + a.height >= b.y + b.height;
  return boxes.flatMap((a, at) => boxes.slice(at + 1).filter(b => !apart(a, b) && !holds(a, b) && !holds(b, a)));
})()
"""

# What reaches over the right edge and does not scroll within a box of its own.
TOO_WIDE = """
[...document.querySelectorAll("body *")]
  .filter(element => element.getBoundingClientRect().right > 360.5 && !element.closest(".scroll, .value, .skip"))
  .map(element => element.outerHTML.slice(0, 120))
"""


@pytest.fixture
def stage(sqlite_url: str) -> Iterator[Stage]:
    found = Stage(sqlite_url)
    yield found
    found.close()


@contextmanager
def served(app: FastAPI) -> Generator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started, "the server started")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def site(stage: Stage) -> Iterator[str]:
    app = FastAPI()
    services = stage.services()
    app.include_router(page_routes(services))
    app.include_router(metric_routes(services))
    with served(app) as address:
        yield address


@pytest.fixture
def chromium(site: str) -> Iterator[Chromium]:
    """Whatever a test does: no complaint on the console, no request to anywhere else."""
    with Chromium() as found:
        yield found
        assert found.complaints == []
        assert {urlsplit(address).netloc for address in found.requested} == {urlsplit(site).netloc}


def step(stage: Stage, run: str, output: str) -> None:
    held = stage.claim(run)
    stage.settle(stage.open(scope=stage.scope(held)))
    stage.complete(held, Succeeded(output, "openai/gpt-6-luna"))


def finished(stage: Stage) -> str:
    run = stage.submit(TWO_STEPS, {"topic": "<b>tea</b>"})
    step(stage, run, "Tea is old.")
    step(stage, run, "The history of tea. " * 200)
    return run


def test_the_pages_show_spend_models_runs_and_steps(stage: Stage, site: str, chromium: Chromium) -> None:
    run = finished(stage)
    chromium.open(f"{site}/dashboard")
    assert "Spend by day" in chromium.text and "$0.0030" in chromium.text and "gpt-6-luna openai" in chromium.text
    assert chromium.run("document.querySelectorAll('.plot .bar').length") == 30
    assert chromium.run("document.querySelector('.plot .day:last-of-type .bar').getBoundingClientRect().height") > 50
    chromium.run(f"document.querySelector('a[href=\"/dashboard/runs/{run}\"]').click()")
    chromium.wait(lambda: "Timeline" in chromium.text, "the run's page opened")
    assert '"topic": "<b>tea</b>"' in chromium.text and "Tea is old." in chromium.text
    assert chromium.run("document.querySelectorAll('.timeline rect.is-succeeded').length") == 2
    chromium.open(f"{site}/dashboard/runs?status=succeeded")
    assert "tea-report" in chromium.text
    chromium.open(f"{site}/dashboard/mcp")
    assert "No MCP server is configured" in chromium.text


def test_a_run_is_followed_live_and_what_was_opened_stays_open(stage: Stage, site: str, chromium: Chromium) -> None:
    run = stage.submit(TWO_STEPS)
    step(stage, run, "Tea is old.")
    chromium.open(f"{site}/dashboard/runs/{run}")
    assert "report llm ready" in chromium.text
    chromium.run("document.querySelector('#step-1-attempts').open = true")
    step(stage, run, "The end.")
    chromium.wait(lambda: "The end." in chromium.text, "the page showed the run's end")
    assert chromium.run("document.querySelector('#step-1-attempts').open") is True
    assert chromium.run("'refreshMs' in document.querySelector('main').dataset") is False
    assert str(chromium.run("document.title")).endswith("succeeded · aigateway")
    pages = [address for address in chromium.requested if address.endswith(run)]
    assert len(pages) >= 2


def test_without_javascript_the_page_comes_again_by_itself(stage: Stage, site: str, chromium: Chromium) -> None:
    run = stage.submit(TWO_STEPS)
    chromium.ask("Emulation.setScriptExecutionDisabled", value=True)
    chromium.open(f"{site}/dashboard/runs/{run}")
    assert "summarize llm ready" in chromium.text
    step(stage, run, "Tea is old.")
    chromium.wait(lambda: "Tea is old." in chromium.text, "the page came again")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_button_steers_the_run(stage: Stage, site: str, chromium: Chromium, scripts: bool) -> None:
    run = stage.submit(TWO_STEPS)
    chromium.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
    chromium.open(f"{site}/dashboard/runs/{run}")
    chromium.run("document.querySelector('form[action$=\"/cancel\"] button').click()")
    chromium.wait(lambda: "tea-report cancelled" in chromium.text, "the page showed the cancelled run")
    row = stage.read(lambda tx: get_run(tx, run))
    assert row is not None and row["status"] == "cancelled"
    assert chromium.run("location.pathname") == f"/dashboard/runs/{run}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(stage: Stage, site: str, chromium: Chromium, scheme: str) -> None:
    run = finished(stage)
    stage.submit(TWO_STEPS.replace("tea-report", "a" * 100))
    held = stage.claim(stage.submit(TWO_STEPS))
    stage.fail(stage.open(scope=stage.scope(held), model="m" * 150), error="no space " + "x" * 300)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.ask("Emulation.setEmulatedMedia", features=features)
    chromium.ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    asking = stage.submit(ASKING)
    stage.complete(stage.claim(asking), Listening("approval"))
    run_pages = [f"/runs/{one}" for one in (run, held.run["id"], asking)]
    for path in (
        "",
        "/runs",
        "/calls",
        *run_pages,
        "/workflows",
        "/workflows/tea-report",
        "/schedules",
        "/deliveries",
        "/chat",
        "/providers",
        "/mcp",
    ):
        chromium.open(f"{site}/dashboard{path}")
        chromium.run("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert chromium.run(TOO_WIDE) == [], path
        assert chromium.run(CONTRASTS) == [], path
    dark = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert dark == ("rgb(17, 21, 27)" if scheme == "dark" else "rgb(246, 247, 249)")


def test_a_waiting_step_is_approved_and_a_run_forked(stage: Stage, site: str, chromium: Chromium) -> None:
    run = stage.submit(ASKING)
    stage.complete(stage.claim(run), Listening("approval"))
    chromium.open(f"{site}/dashboard/runs/{run}")
    assert "Waits for the signal approval" in chromium.text
    chromium.run("document.querySelector('form[action$=\"/signal\"] button').click()")
    chromium.wait(lambda: "then llm ready" in chromium.text, "the next step is ready")
    assert '"approved": true' in chromium.text
    step(stage, run, "Done.")
    chromium.wait(lambda: "asking succeeded" in chromium.text, "the run has ended")
    chromium.run("document.querySelector('#step-2-fork').open = true")
    chromium.run("document.querySelector('#step-2-fork button').click()")
    chromium.wait(lambda: f"/runs/{run}" not in str(chromium.run("location.pathname")), "the fork is shown")
    chromium.wait(lambda: "then llm ready" in chromium.text, "the fork's page is there")
    assert '"approved": true' in chromium.text


def test_a_workflow_is_drawn(stage: Stage, site: str, chromium: Chromium) -> None:
    stage.submit(NESTED)
    chromium.open(f"{site}/dashboard/workflows")
    chromium.run("document.querySelector('a[href$=\"/nested\"]').click()")
    chromium.wait(lambda: "Graph" in chromium.text, "the workflow's page opened")
    assert chromium.run("document.querySelectorAll('.graph .node').length") == 6
    assert chromium.run("document.querySelectorAll('.graph .edge').length") == 3
    assert chromium.run(OVERLAPS) == []


def test_a_model_is_tried_on_the_chat_page(tmp_path: Path) -> None:
    simulated = {
        "type": "simulated",
        "models": {"slow": {"reply": "one two three", "chunks": 3, "input": 1, "output": 2}},
    }
    with gateway(tmp_path, {"providers": {"sim": simulated}, "models": {"local": "sim/slow"}}) as up:
        up.start("serve", "--port", str(up.port), "--workers", "0")
        up.wait_until_up(0)
        with Chromium() as chromium:
            chromium.open(f"{up.url}/dashboard/chat")
            chromium.run("document.querySelector('[name=model]').value = 'local'")
            chromium.run("document.querySelector('[name=text]').value = 'hello'")
            chromium.run("document.querySelector('#chat').requestSubmit()")
            chromium.wait(lambda: "one two three" in chromium.text and "sim/slow" in chromium.text, "it answered")
            assert "USD" in chromium.text
            chromium.run("document.querySelector('[name=model]').value = 'nothing'")
            chromium.run("document.querySelector('[name=text]').value = 'again'")
            chromium.run("document.querySelector('#chat').requestSubmit()")
            chromium.wait(lambda: "No model is called" in chromium.text, "it said what is wrong")
            assert chromium.run("document.querySelector('[name=text]').value") == "again"
            chromium.open(f"{up.url}/dashboard/providers")
            chromium.run("document.querySelector('form[action$=\"/check\"] button').click()")
            chromium.wait(lambda: "sim simulated none ok" in chromium.text, "it asked the providers")
