"""`/metrics` as Prometheus reads it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from services import free_port
from stage import Stage
from starlette.testclient import TestClient

from api.metrics import OverheadHistogram, observe_overhead, routes
from engine.clock import now_us
from engine.control import pause
from engine.ports import Succeeded
from engine.store.database import Database
from engine.store.ledger_totals import MOST_LABELS

ONE_STEP = "name: one\nsteps:\n  - {id: only, type: set, value: 1}\n"
BY = {"provider": "openai", "model": "gpt-6-luna", "workflow": ""}


class Scraped:
    def __init__(self, text: str) -> None:
        self.families = list(parse_text(text))
        self.samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, *sorted(labels.items())]


def scrape(browser: TestClient) -> Scraped:
    answer = browser.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return Scraped(answer.text)


def test_money_tokens_calls_and_latency_by_provider_model_and_workflow(stage: Stage, browser: TestClient) -> None:
    stage.settle(stage.open())
    stage.fail(stage.open())
    stage.open()
    found = scrape(browser)
    assert found.value("aigateway_spend_usd_total", **BY) == 0.0015
    assert found.value("aigateway_tokens_total", **BY, type="cache_read") == 20
    assert found.value("aigateway_requests_total", **BY, status="succeeded", error_class="") == 1
    assert found.value("aigateway_requests_total", **BY, status="failed", error_class="rate_limit") == 1
    assert found.value("aigateway_requests_unsettled", **BY, status="started") == 1
    assert found.value("aigateway_unknown_price_requests_total", **BY) == 0
    assert found.value("aigateway_request_duration_seconds_count", **BY) == 2
    assert found.value("aigateway_request_duration_seconds_sum", **BY) == 2.4
    assert found.value("aigateway_request_duration_seconds_bucket", **BY, le="2.5") == 2
    assert found.value("aigateway_request_duration_seconds_bucket", **BY, le="1.0") == 0
    assert found.value("aigateway_time_to_first_token_seconds_bucket", **BY, le="0.5") == 1
    assert found.value("aigateway_build_info", version="1.2.3") == 1


def test_runs_steps_queue_workers(stage: Stage, browser: TestClient) -> None:
    done, paused, waiting = (stage.submit(ONE_STEP) for _ in range(3))
    stage.complete(stage.claim(done), Succeeded(1, None))
    stage.write(lambda tx: pause(tx, stage.catalogue, paused, now_us()))
    found = scrape(browser)
    assert found.value("aigateway_runs", workflow="one", status="succeeded") == 1
    assert found.value("aigateway_runs", workflow="one", status="paused") == 1
    assert found.value("aigateway_steps", status="ready") == 2
    assert found.value("aigateway_steps", status="running") == 0
    assert found.value("aigateway_queue_depth", priority="normal") == 1, "a paused run's step is not in the queue"
    assert found.value("aigateway_queue_oldest_seconds") > 0
    assert found.value("aigateway_workers") == 1
    stage.claim(waiting)
    found = scrape(browser)
    assert found.value("aigateway_queue_depth", priority="normal") == 0
    assert found.value("aigateway_queue_oldest_seconds") == 0


def test_webhook_deliveries_by_status(stage: Stage, browser: TestClient) -> None:
    run = stage.submit(ONE_STEP, webhook_url="http://127.0.0.1:9/hook")
    stage.complete(stage.claim(run), Succeeded(1, None))
    found = scrape(browser)
    assert found.value("aigateway_webhook_deliveries", status="pending") == 1
    assert found.value("aigateway_webhook_deliveries", status="dead") == 0


def test_two_processes_tell_the_same(stage: Stage, browser: TestClient) -> None:
    app = FastAPI()
    app.include_router(routes(stage.services()))
    with TestClient(app) as other:
        scrape(other)
        stage.settle(stage.open())
        mine, theirs = (
            {key: value for key, value in scrape(client).samples.items() if key[0].startswith("aigateway_request")}
            for client in (browser, other)
        )
    assert mine and mine == theirs


def test_every_family_is_described_and_openmetrics_is_valid(stage: Stage, browser: TestClient) -> None:
    stage.settle(stage.open(model='"quoted"\nand\\more'))
    observe_overhead(0.002, "openai", "x")
    found = scrape(browser)
    assert found.value("aigateway_spend_usd_total", **BY | {"model": '"quoted"\nand\\more'}) == 0.0015
    assert all(family.documentation for family in found.families)
    names = [family.name for family in found.families]
    assert len(names) == len(set(names))
    assert {"process_resident_memory_bytes", "python_info"} <= set(names)
    answer = browser.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "aigateway_spend_usd" in {family.name for family in parse_openmetrics(answer.text)}


@pytest.fixture
def overhead() -> Iterator[tuple[OverheadHistogram, CollectorRegistry]]:
    registry = CollectorRegistry()
    yield OverheadHistogram(registry), registry


def test_overhead_is_a_histogram_with_bounded_labels(overhead: tuple[OverheadHistogram, CollectorRegistry]) -> None:
    histogram, registry = overhead
    histogram.observe(0.0021, "openai", "gpt-6-luna")
    for number in range(MOST_LABELS + 10):
        histogram.observe(0.001, "openai", f"made up {number}")
    name = "aigateway_overhead_seconds"
    luna = {"provider": "openai", "model": "gpt-6-luna"}
    assert registry.get_sample_value(f"{name}_bucket", {**luna, "le": "0.003"}) == 1
    assert registry.get_sample_value(f"{name}_bucket", {**luna, "le": "0.002"}) == 0
    assert registry.get_sample_value(f"{name}_count", {"provider": "other", "model": "other"}) == 11


def test_without_a_database_the_process_still_tells_about_itself(stage: Stage) -> None:
    nowhere = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    app = FastAPI()
    app.include_router(routes(replace(stage.services(), database=nowhere)))
    try:
        with TestClient(app) as client:
            found = scrape(client)
    finally:
        nowhere.close()
    assert found.value("aigateway_database_up") == 0
    assert found.value("process_start_time_seconds") > 0


def test_a_database_that_is_there_is_up(browser: TestClient) -> None:
    assert scrape(browser).value("aigateway_database_up") == 1
