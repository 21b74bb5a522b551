"""`GET /v1/providers`: who is configured, and which of their models rest after failures; the same as gauges for `/metrics`."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

from fastapi import APIRouter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from api.params import part
from api.services import Services
from engine.clock import now_us
from engine.provider_health import Rest, health_view, state_of

_MOST = 200  # label sets


def routes(services: Services) -> APIRouter:
    """The one route."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/providers", summary="Configured providers, and which of their models rest after failures")
    async def show(limit: int = 50, cursor: str | None = None) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        resting = await services.database.read(lambda tx: health_view(tx, now_us()))
        data: list[dict[str, Any]] = []
        for provider in services.router.providers:
            name = provider.config.name
            own = [
                {key: told for key, told in row.items() if key != "provider"}
                for row in resting
                if row["provider"] == name
            ]
            data.append(
                {"id": name, "type": provider.config.type, "status": "degraded" if own else "healthy", "resting": own}
            )
        return part(data, limit, cursor, name=itemgetter("id"))

    return router


def health_families(rests: Sequence[Rest], now: int) -> Iterator[Metric]:
    """A candidate that is healthy has no sample."""
    family = GaugeMetricFamily(
        "aigateway_provider_resting",
        "1 for a model that rests after failures: cooling, waiting for a call that tries it, or probing.",
        labels=("provider", "model", "state"),
    )
    for rest in rests[:_MOST]:
        family.add_metric((rest.provider, rest.model, state_of(rest, now)), 1)
    yield family
