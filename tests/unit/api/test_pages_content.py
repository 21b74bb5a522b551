"""What the pages show, and that nothing anyone wrote can do more than be shown."""

import asyncio
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any

import pytest
from stage import Stage
from starlette.testclient import TestClient

from api.pages.overview import SpendKept
from engine.api_keys import NewKey, create_key, new_secret
from engine.budget_spec import BudgetSpec, Origin
from engine.budgets import put_budget
from engine.clock import now_us
from engine.firing import fire
from engine.ledger import CallScope, CostSource
from engine.periods import Period
from engine.ports import Failed, Succeeded
from engine.schedule_spec import ScheduleSpec
from engine.schedules import create_schedule
from engine.states import ErrorClass
from engine.store.deliveries import deliveries_of_run
from engine.store.spend import DAY_US
from engine.webhook_outbox import record_delivery

TWO_STEPS = """
name: two-steps
steps:
  - {id: first, type: llm, model: local, prompt: hello, retry: {max_attempts: 3}, output: answer}
  - {id: second, type: set, value: "${answer}"}
"""
HOSTILE = """</pre><script>alert(1)</script><img src=x onerror="alert(2)">'"{{ 7 * 7 }}${8 * 8}"""


class Page(HTMLParser):
    """The tags of a page and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def addresses(self) -> Iterable[str]:
        for _, attributes in self.tags:
            yield from (attributes[name] or "" for name in ("href", "src", "action") if name in attributes)


def get(browser: TestClient, address: str, status: int = 200) -> Page:
    answer = browser.get(address)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


def finish(stage: Stage, run: str, output: Any = "Tea is old.") -> None:
    held = stage.claim(run)
    stage.settle(stage.open(scope=stage.scope(held)))
    stage.complete(held, Succeeded(output, "openai/gpt-6-luna"))
    stage.complete(stage.claim(run), Succeeded(output, None))


def test_an_empty_gateway_says_what_to_do(stage: Stage, browser: TestClient) -> None:
    page = get(browser, "/dashboard")
    assert "No run yet" in page.text and "aigateway run" in page.text
    assert "No run yet" in get(browser, "/dashboard/runs").text
    assert "No schedule yet" in get(browser, "/dashboard/schedules").text
    assert "No MCP server is configured" in get(browser, "/dashboard/mcp").text


def test_the_overview_adds_up_today_7_and_30_days(stage: Stage, browser: TestClient) -> None:
    for days_ago, usd in ((0, 1), (3, 2), (20, 4), (31, 8)):
        stage.settle(stage.open(at_us=now_us() - days_ago * DAY_US), cost_picousd=usd * 10**12)
    unknown = stage.open(scope=CallScope("r", workflow_name="digest"), provider="vllm", model="own")
    stage.settle(unknown, cost_picousd=None, cost_source=CostSource.UNKNOWN)
    page = get(browser, "/dashboard")
    assert "Today $1.00 2 calls" in page.text
    assert "7 days $3.00 3 calls" in page.text
    assert "30 days $7.00 4 calls" in page.text
    assert page.text.count("not in it: 1 call of unknown price") == 3
    assert "gpt-6-luna openai 3 495 $7.00" in page.text
    assert "own vllm 1 165 $0.00 + 1 unknown" in page.text
    assert "digest 1 165 $0.00 + 1 unknown" in page.text and "outside workflows 3 495 $7.00" in page.text
    assert "By provider, 30 days" in page.text and "openai 3 495 $7.00" in page.text
    bars = [attributes for attributes in page.all("rect") if attributes.get("class") == "bar"]
    assert len(bars) == 30
    assert [bar["height"] for bar in bars if bar["height"] != "0.0"] == ["100.0", "50.0", "25.0"]
    assert re.search(r"\d{4}-\d\d-\d\d: \$4\.00, 1 call, 165 tokens", page.text)


def test_the_overview_sums_by_provider_and_key_over_the_days_asked_for(stage: Stage, browser: TestClient) -> None:
    made = stage.write(lambda tx: create_key(tx, NewKey("press"), new_secret(), now_us()))
    for days_ago, usd, key_id in ((0, 1, made.id), (3, 2, None), (20, 4, "gone-key")):
        call = stage.open(scope=CallScope("r", key_id=key_id), at_us=now_us() - days_ago * DAY_US)
        stage.settle(call, cost_picousd=usd * 10**12)
    month = get(browser, "/dashboard")
    assert "By key, 30 days" in month.text and f"press {made.id[-8:]} 1 165 $1.00" in month.text
    assert "without a key 1 165 $2.00" in month.text and "gone-key gone-key 1 165 $4.00" in month.text
    assert "By provider, 30 days Provider Calls Tokens Cost openai 3 495 $7.00" in month.text
    week = get(browser, "/dashboard?days=7")
    assert (
        "By provider, 7 days Provider Calls Tokens Cost openai 2 330 $3.00" in week.text and "gone-key" not in week.text
    )
    assert (
        "By model, today Model Calls Tokens Cost gpt-6-luna openai 1 165 $1.00"
        in get(browser, "/dashboard?days=1").text
    )
    assert "30 days $7.00 3 calls" in week.text
    for wrong in ("2", "many"):
        assert "days has to be 1, 7 or 30" in get(browser, f"/dashboard?days={wrong}", 400).text


@pytest.mark.parametrize(
    ("took_s", "later_s", "kept"), [(0.04, 0, False), (0.5, 9, True), (0.5, 11, False), (9, 59, True), (9, 61, False)]
)
def test_sums_that_take_long_to_read_are_kept_for_a_while(
    stage: Stage, took_s: float, later_s: float, kept: bool
) -> None:
    def spend_once() -> None:
        stage.settle(stage.open(scope=CallScope("r"), at_us=now_us()), cost_picousd=1)

    async def look() -> tuple[int, int, int]:
        times = iter([0, took_s, took_s, took_s + later_s] + [took_s + later_s] * 9)
        sums = SpendKept(stage.services(), clock=lambda: next(times))
        spend_once()
        found = [await sums.rows(0)]
        await asyncio.to_thread(spend_once)
        found += [await sums.rows(0), await sums.rows(DAY_US)]
        first, second, other = (int(sum(row["calls"] for row in rows)) for rows in found)
        return first, second, other

    assert asyncio.run(look()) == (1, 1 if kept else 2, 2)


def test_an_address_with_a_slash_behind_it_leads_to_the_page(stage: Stage, browser: TestClient) -> None:
    for address in ("/dashboard", "/dashboard/runs", "/dashboard/workflows/two%20words"):
        answer = browser.get(f"{address}/?days=7")
        assert (answer.status_code, answer.headers["location"]) == (308, f"{address}?days=7")


def test_schedules_show_their_times_and_their_last_runs(stage: Stage, browser: TestClient) -> None:
    stage.submit(TWO_STEPS)
    spec = ScheduleSpec(cron="0 7 * * *", zone="Europe/Berlin")
    row, _ = stage.write(
        lambda tx: create_schedule(tx, stage.catalogue, ("mornings", "two-steps"), spec, key_id=None, now=now_us())
    )
    paused = ScheduleSpec(cron="@daily", enabled=False)
    stage.write(
        lambda tx: create_schedule(tx, stage.catalogue, ("off", "two-steps"), paused, key_id=None, now=now_us())
    )
    due = row["next_us"]
    assert stage.write(lambda tx: fire(tx, stage.catalogue, row["id"], due)).rings
    page = get(browser, "/dashboard/schedules")
    assert re.search(
        r"off paused Workflow two-steps Cron @daily Zone UTC Next . Last . .* It has started no run yet\. mornings "
        r"Workflow two-steps Cron 0 7 \* \* \* Zone Europe/Berlin Next \d{4}-\S+ 0[56]:00:00 Last \d{4}-\S+ 0[56]:00:00 "
        r"Overlap skip Started 1 Set over HTTP .* queued two-steps",
        page.text,
    ), page.text
    assert len([address for address in page.addresses() if "/dashboard/runs/" in address]) == 1


def test_deliveries_of_all_runs_are_listed_and_sent_again(stage: Stage, browser: TestClient) -> None:
    assert "No webhook yet" in get(browser, "/dashboard/deliveries").text
    run = stage.submit(TWO_STEPS, webhook_url="https://example.org/hook?<x>")
    finish(stage, run)
    (delivery,) = stage.read(lambda tx: deliveries_of_run(tx, run))
    stage.write(lambda tx: record_delivery(tx, {**delivery, "tries": 0}, 500, "HTTP 500", now_us()))
    stage.write(lambda tx: record_delivery(tx, {**delivery, "tries": 1}, 204, None, now_us()))
    page = get(browser, "/dashboard/deliveries?status=delivered")
    assert re.search(rf"delivered run\.succeeded {run[-8:]} 204 2 \d{{4}}", page.text), page.text
    assert f"/dashboard/runs/{run}" in page.addresses() and "https://example.org/hook?<x>" in page.text
    assert "No deliveries match" in get(browser, "/dashboard/deliveries?status=dead").text
    assert "there is no delivery status 'lost'" in get(browser, "/dashboard/deliveries?status=lost", 400).text
    (button,) = [one for one in page.addresses() if one.endswith("/redeliver")]
    assert browser.post(button, headers={"origin": "https://elsewhere.example"}).status_code == 403
    sent = browser.post(button, headers={"origin": str(browser.base_url)}, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/dashboard/deliveries")
    assert "pending run.succeeded" in get(browser, "/dashboard/deliveries?status=pending").text


def test_calls_are_listed_with_what_they_were_for_and_what_went_wrong(stage: Stage, browser: TestClient) -> None:
    assert "No call yet" in get(browser, "/dashboard/calls").text
    run = stage.submit(TWO_STEPS)
    held = stage.claim(run)
    stage.fail(stage.open(scope=stage.scope(held), model="<b>m</b>"), error="<img src=x onerror=alert(1)>")
    stage.settle(stage.open(scope=CallScope("request-1", tags={"team": "a"}), model="plain"))
    stage.open(scope=CallScope("request-2"), model="under-way")
    page = get(browser, "/dashboard/calls")
    assert f"/dashboard/runs/{run}" in page.addresses() and "/v1/requests/request-1" in page.addresses()
    assert re.search(r"started under-way openai .* succeeded plain openai .* failed <b>m</b> openai", page.text), (
        page.text
    )
    assert "<img src=x onerror=alert(1)>" in page.text and not page.all("img")
    for narrowing in ("status=succeeded", "model=plain", "tag=team:a", "request=request-1"):
        found = get(browser, f"/dashboard/calls?{narrowing}").text
        assert "succeeded plain" in found and "under-way" not in found
    assert "No calls match" in get(browser, "/dashboard/calls?status=unknown").text
    assert "there is no status of calls 'lost'" in get(browser, "/dashboard/calls?status=lost", 400).text
    assert "tag must be key:value" in get(browser, "/dashboard/calls?tag=team", 400).text


def test_budgets_are_shown_where_there_are_some(stage: Stage, browser: TestClient) -> None:
    assert "Budgets" not in get(browser, "/dashboard").text
    stage.write(lambda tx: put_budget(tx, BudgetSpec("daily", 5 * 10**12, Period.DAY), Origin.HTTP, now_us()))
    stage.write(lambda tx: put_budget(tx, BudgetSpec("none", 0, Period.TOTAL), Origin.HTTP, now_us()))
    text = get(browser, "/dashboard").text
    assert (
        re.search(r"daily all calls \$0\.00 \$0\.00 \$5\.00 \d{4}-", text)
        and "none all calls $0.00 $0.00 $0.00 \u2013" in text
    )


def test_runs_are_searched_by_id_tag_and_name(stage: Stage, browser: TestClient) -> None:
    tagged = stage.submit(TWO_STEPS, tags={"team": "press"})
    other = stage.submit("name: other\nsteps:\n  - {id: a, type: set, value: 1}\n")
    found = get(browser, "/dashboard/runs?search=team:press")
    assert f"/dashboard/runs/{tagged}" in found.addresses() and f"/dashboard/runs/{other}" not in found.addresses()
    named = get(browser, "/dashboard/runs?search=other")
    assert f"/dashboard/runs/{other}" in named.addresses() and f"/dashboard/runs/{tagged}" not in named.addresses()
    answer = browser.get(f"/dashboard/runs?search={other}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/dashboard/runs/{other}")
    assert "No runs match" in get(browser, "/dashboard/runs?search=team:nobody").text
    assert "No runs match" in get(browser, "/dashboard/runs?search=%22%3E%3Cscript%3E").text


def test_the_overview_links_the_latest_runs(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(TWO_STEPS)
    finish(stage, run)
    page = get(browser, "/dashboard")
    assert f"/dashboard/runs/{run}" in page.addresses()
    assert re.search(r"succeeded two-steps \w{8} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \d+ ms 165 \$0\.0015", page.text)


def test_runs_are_filtered_and_paged(stage: Stage, browser: TestClient) -> None:
    runs = [stage.submit(TWO_STEPS) for _ in range(52)]
    other = stage.submit("name: other\nsteps:\n  - {id: a, type: set, value: 1}\n")
    stage.complete(stage.claim(other), Succeeded(1, None))

    def listed(page: Page) -> list[str]:
        found = [address.rpartition("/")[2] for address in page.addresses() if "/dashboard/runs/" in address]
        return [address for address in found if len(address) == 36]

    first = get(browser, "/dashboard/runs")
    assert listed(first) == [other, *reversed(runs[3:])]
    older = next(address for address in first.addresses() if "before=" in address)
    assert listed(get(browser, older)) == list(reversed(runs[:3]))
    assert listed(get(browser, "/dashboard/runs?status=succeeded")) == [other]
    assert listed(get(browser, "/dashboard/runs?workflow=other&status=succeeded")) == [other]
    assert not listed(get(browser, "/dashboard/runs?workflow=nothing"))
    tagged = stage.submit(TWO_STEPS, tags={"team": "press"})
    for words in (other[:30].upper(), "THE"):
        assert listed(get(browser, f"/dashboard/runs?search={words}")) == [other]
    assert listed(get(browser, "/dashboard/runs?search=team:press")) == [tagged]
    assert not listed(get(browser, "/dashboard/runs?search=o%25r"))  # no pattern
    kept = next(a for a in get(browser, "/dashboard/runs?workflow=two-steps").addresses() if "before=" in a)
    assert "workflow=two-steps" in kept
    assert "there is no run status 'lost'" in get(browser, "/dashboard/runs?status=lost", 400).text


def test_a_run_shows_each_step_with_its_attempts_and_calls(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(TWO_STEPS, {"topic": "tea"}, tags={"team": "press"}, budget_picousd=10**12)
    held = stage.claim(run)
    stage.fail(stage.open(scope=stage.scope(held)))
    stage.complete(held, Failed(ErrorClass.RATE_LIMIT, "slow down"))
    page = get(browser, f"/dashboard/runs/{run}")
    assert "first llm waiting" in page.text and "next attempt" in page.text
    assert "attempt 1: failed" in page.text and "Attempt 1 failed" in page.text
    assert "openai gpt-6-luna failed \u2013 \u2013 $0.00 1.2 s rate_limit slow down" in page.text
    assert "second set pending" in page.text
    assert '"topic": "tea"' in page.text and "team: press" in page.text and "of $1.00" in page.text
    assert page.all("main")[0]["data-refresh-ms"] == "1000"
    assert page.all("meta")[-1] == {"http-equiv": "refresh", "content": "5"}


def test_an_ended_run_stands_still(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(TWO_STEPS)
    finish(stage, run)
    page = get(browser, f"/dashboard/runs/{run}")
    assert "Tea is old." in page.text and "openai/gpt-6-luna · 165 tokens · $0.0015" in page.text
    assert "data-refresh-ms" not in page.all("main")[0]
    assert all("http-equiv" not in attributes for attributes in page.all("meta"))
    assert all(form["action"].endswith("/fork") for form in page.all("form"))  # nothing else is left to do with it


def test_an_error_is_told(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(TWO_STEPS)
    stage.complete(stage.claim(run), Failed(ErrorClass.AUTH, "the key is wrong", final=True))
    page = get(browser, f"/dashboard/runs/{run}")
    assert "auth in step first the key is wrong" in page.text
    assert "Retry from the failed step" in page.text


def test_what_others_wrote_is_only_shown(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(TWO_STEPS, {HOSTILE: HOSTILE}, tags={HOSTILE: HOSTILE})
    held = stage.claim(run)
    stage.fail(stage.open(scope=stage.scope(held), model=HOSTILE, provider=HOSTILE), error=HOSTILE)
    stage.complete(held, Failed(ErrorClass.RATE_LIMIT, HOSTILE))
    again = stage.submit(TWO_STEPS)
    finish(stage, again, HOSTILE)
    for address in ("/dashboard", "/dashboard/runs", f"/dashboard/runs/{run}", f"/dashboard/runs/{again}"):
        html = browser.get(address).text
        assert "<script>alert" not in html and "<img" not in html
        assert "49" not in re.findall(r"'\"(\S+)\$", html)
    filtered = browser.get("/dashboard/runs", params={"workflow": HOSTILE}).text
    assert "<script>alert" not in filtered and "&lt;script&gt;alert(1)" in filtered
    page = get(browser, f"/dashboard/runs/{again}")
    assert HOSTILE in "".join(page.words)


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard",
        "/dashboard/runs",
        "/dashboard/calls",
        "/dashboard/mcp",
        "/dashboard/schedules",
        "/dashboard/deliveries",
        "/dashboard/runs/{run}",
    ],
)
def test_pages_hold_to_their_own_policy(stage: Stage, browser: TestClient, path: str) -> None:
    run = stage.submit(TWO_STEPS)
    answer = browser.get(path.format(run=run))
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    page = Page(answer.text)
    assert all(address.startswith(("/", "#")) and not address.startswith("//") for address in page.addresses())
    for tag, attributes in page.tags:
        assert tag != "style" and "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "script" or attributes["src"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert [attributes["lang"] for attributes in page.all("html")] == ["en"]
    assert len(page.all("main")) == len(page.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert set(" ".join(str(name) for name in named).split()) <= set(ids)


def test_the_pages_files_are_served_for_ever(browser: TestClient) -> None:
    files = [address for address in get(browser, "/dashboard").addresses() if "/static/" in address]
    assert len(files) == 3 and all("?v=" in address for address in files)
    types = {browser.get(address).headers["content-type"] for address in files}
    assert types == {"image/svg+xml", "text/css; charset=utf-8", "text/javascript; charset=utf-8"}
    assert "immutable" in browser.get(files[0]).headers["cache-control"]
    get(browser, "/dashboard/static/routes.py", 404)
    assert browser.get("/dashboard/static/..%2Froutes.py").status_code == 404


def test_a_long_value_is_cut_and_opens(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(TWO_STEPS)
    finish(stage, run, "tea " * 500_000)
    html = browser.get(f"/dashboard/runs/{run}").text
    assert "All 2,000,000 characters" in html and "Cut here" in html
    assert len(html) < 500_000


def test_a_lone_surrogate_from_a_model_breaks_no_page(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(TWO_STEPS)
    finish(stage, run, "half \ud83d of a face")
    assert "half ? of a face" in get(browser, f"/dashboard/runs/{run}").text


def test_an_unknown_run_is_a_page_that_says_so(browser: TestClient) -> None:
    page = get(browser, "/dashboard/runs/none", 404)
    assert "404 run_not_found there is no run none" in page.text
