"""`/metrics` in Prometheus' text format: the database's figures, right with any number of processes, and this process's own.

Spend, tokens, requests and latencies are counted from the ledger's rows at the scrape (engine/store/ledger_totals.py), so every
process tells the same and a restart loses nothing. Only settled calls are counters; a call whose end is not known, or was seen
by nobody, is a gauge until it settles, so that no counter ever falls. Rows that retention deletes leave their sums behind.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

from fastapi import APIRouter, Request, Response
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from api.budget_metrics import budget_families, read_budgets
from api.providers import health_families
from api.services import Services
from engine.clock import now_us
from engine.errors import RetryableError
from engine.money import to_usd
from engine.provider_health import rests
from engine.states import Priority, StepStatus
from engine.store.gauges import Gauges, Queue, read_gauges
from engine.store.ledger_totals import BUCKETS_MS, MOST_LABELS, OTHER, Folded, Labels, Totals, read_totals

_OVERHEAD_EDGES_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_OPEN_STATES = (StepStatus.PENDING, StepStatus.READY, StepStatus.RUNNING, StepStatus.WAITING)
_BY = ("provider", "model", "workflow")


class OverheadHistogram:
    """Time that this process adds to an upstream's own. At most MOST_LABELS pairs of provider and model have a name."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._histogram = Histogram(
            "aigateway_overhead_seconds",
            "Time that the gateway adds to a chat request, the upstream's own time not counted.",
            ("provider", "model"),
            buckets=_OVERHEAD_EDGES_S,
            registry=registry,
        )
        self._named: dict[tuple[str, str], Histogram] = {}

    def observe(self, seconds: float, provider: str, model: str) -> None:
        """Count one request."""
        pair = (provider, model)
        named = self._named.get(pair)
        if named is None:
            if len(self._named) >= MOST_LABELS:
                named = self._histogram.labels(*OTHER[:2])
            else:
                named = self._named[pair] = self._histogram.labels(*pair)
        named.observe(max(0.0, seconds))


OVERHEAD = OverheadHistogram()
FAILOVERS = Counter(
    "aigateway_failovers",
    "Calls of clients that went on to another target, by the one that failed.",
    ("provider", "model"),
)


def observe_failovers(targets: Sequence[tuple[str, str]]) -> None:
    """Count the targets (provider, model) that a client's request left for another one; as many labels as there are targets."""
    for left, taken in pairwise(targets):
        if left != taken:
            FAILOVERS.labels(*left).inc()


def observe_overhead(seconds: float, provider: str, model: str) -> None:
    """Count the gateway's own share of one chat request, in seconds."""
    OVERHEAD.observe(seconds, provider, model)


def routes(services: Services) -> APIRouter:
    """The one route."""
    router = APIRouter(tags=["health"])
    scraper = Scraper(services)

    @router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        families = await scraper.families()
        body = await asyncio.to_thread(encode, Document(families))
        return Response(body, headers={"content-type": content_type})

    return router


class Document:
    """What a scrape answers: this process's own metrics, then the given ones."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """prometheus_client's Collector."""
        yield from REGISTRY.collect()
        yield from self._families


class Scraper:
    """Reads the database's figures; keeps what need not be read twice. One scrape at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._folded = Folded()
        self._turn = asyncio.Lock()

    async def families(self) -> list[Metric]:
        """Without a database only that it is missing: this process's own metrics are still of use then."""
        own = [
            InfoMetricFamily("aigateway_build", "What runs here.", {"version": self._services.version}),
            GaugeMetricFamily("aigateway_tasks", "Tasks on this process's event loop.", len(asyncio.all_tasks())),
        ]
        try:
            async with self._turn:
                now = now_us()
                read = self._services.database.read
                self._folded, totals = await read(lambda tx: read_totals(tx, self._folded, now))
                gauges = await read(lambda tx: read_gauges(tx, now))
                budgets = await read(lambda tx: read_budgets(tx, now))
                resting = await read(rests)
        except RetryableError:
            return [*own, _database_up(0)]
        families = [
            *ledger_families(totals),
            *gauge_families(gauges, now),
            *budget_families(budgets),
            *health_families(resting, now),
        ]
        return [*own, _database_up(1), *families]


def ledger_families(totals: Mapping[Labels, Totals]) -> Iterator[Metric]:
    """Money, tokens, calls and latencies by provider, model and workflow."""
    sets = sorted(totals.items())
    yield _counter(
        "aigateway_spend_usd",
        "Money spent on settled calls whose price is known.",
        _BY,
        ((labels, to_usd(found.cost_picousd)) for labels, found in sets),
    )
    yield _counter(
        "aigateway_unknown_price_requests",
        "Settled calls whose price is not known; their cost is missing in aigateway_spend_usd_total.",
        _BY,
        ((labels, found.unknown_price) for labels, found in sets),
    )
    yield _counter(
        "aigateway_tokens",
        "Tokens of settled calls in disjoint buckets; reasoning is part of output.",
        (*_BY, "type"),
        (((*labels, kind), number) for labels, found in sets for kind, number in found.tokens.items()),
    )
    yield _counter(
        "aigateway_requests",
        "Settled upstream calls, tool calls included, one per attempt.",
        (*_BY, "status", "error_class"),
        (((*labels, *outcome), number) for labels, found in sets for outcome, number in found.calls.items()),
    )
    yield _gauge(
        "aigateway_requests_unsettled",
        "Calls in flight (started), and calls whose end nobody saw (unknown).",
        (*_BY, "status"),
        (((*labels, status), number) for labels, found in sets for status, number in found.open.items()),
    )
    yield _histogram(
        "aigateway_request_duration_seconds",
        "Upstream calls from the first byte sent to the last byte received.",
        ((labels, found.latency, found.latency_ms) for labels, found in sets),
    )
    yield _histogram(
        "aigateway_time_to_first_token_seconds",
        "Streamed upstream calls from the first byte sent to the first content.",
        ((labels, found.ttft, found.ttft_ms) for labels, found in sets),
    )


def gauge_families(gauges: Gauges, now: int) -> Iterator[Metric]:
    """Runs, steps, queue, workers, webhooks as they stand."""
    yield _gauge("aigateway_runs", "Runs by workflow and status.", ("workflow", "status"), _runs(gauges.runs))
    states = (((state.value,), gauges.steps.get(state.value, 0)) for state in _OPEN_STATES)
    yield _gauge("aigateway_steps", "Steps that have not ended, by state.", ("status",), states)
    yield from _queue_families(gauges.queue, now)
    yield GaugeMetricFamily("aigateway_workers", "Worker processes that are alive.", gauges.workers)
    delivered = (((status,), gauges.deliveries.get(status, 0)) for status in ("pending", "delivered", "dead"))
    yield _gauge("aigateway_webhook_deliveries", "Webhook deliveries by status.", ("status",), delivered)


def _queue_families(queue: Queue, now: int) -> Iterator[Metric]:
    depth = (((priority.value,), queue.depth.get(priority.value, 0)) for priority in Priority)
    yield _gauge("aigateway_queue_depth", "Steps that wait for a worker.", ("priority",), depth)
    oldest_s = 0.0 if queue.oldest_us is None else max(0, now - queue.oldest_us) / 1_000_000
    yield GaugeMetricFamily("aigateway_queue_oldest_seconds", "How long the oldest of them has waited.", oldest_s)


def _runs(counts: Mapping[tuple[str, str], int]) -> list[tuple[tuple[str, str], int]]:
    """The MOST_LABELS workflows with the most runs by name, the others as one."""
    sizes: dict[str, int] = {}
    for (workflow, _), number in counts.items():
        sizes[workflow] = sizes.get(workflow, 0) + number
    named = set(sorted(sizes, key=lambda name: (-sizes[name], name))[:MOST_LABELS])
    shown: dict[tuple[str, str], int] = {}
    for (workflow, status), number in counts.items():
        key = (workflow if workflow in named else OTHER[2], status)
        shown[key] = shown.get(key, 0) + number
    return sorted(shown.items())


def _database_up(value: int) -> Metric:
    return GaugeMetricFamily("aigateway_database_up", "1 where this process reaches its database.", value)


Samples = Iterable[tuple[Sequence[str], float]]


def _counter(name: str, told: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, told, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _gauge(name: str, told: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, told, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _histogram(name: str, told: str, samples: Iterable[tuple[Sequence[str], Sequence[int], float]]) -> Metric:
    """Prometheus' buckets are cumulative; a label set without any call has none."""
    family = HistogramMetricFamily(name, told, labels=_BY)
    edges = [str(edge / 1000) for edge in BUCKETS_MS] + ["+Inf"]
    for labels, counts, sum_ms in samples:
        if any(counts):
            family.add_metric(labels, list(zip(edges, map(float, accumulate(counts)), strict=True)), sum_ms / 1000)
    return family
