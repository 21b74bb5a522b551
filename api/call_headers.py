"""What every answered call tells besides its answer: the `x-aigateway-*` headers and the `aigateway` object (contract §3)."""

import time
from collections.abc import Sequence

from api.metrics import observe_failovers, observe_overhead
from engine.errors import AIGatewayError
from engine.ledger import CostSource
from engine.money import to_usd, usd_text
from providers.errors import ProviderError
from providers.failover import Completed
from providers.provider import AttemptInfo, Json
from providers.streams import OpenStream

_LONGEST_LIST = 1000  # characters


def answer_headers(done: Completed, started: float) -> dict[str, str]:
    """The headers of a whole answer to a request that came at `started` (time.perf_counter)."""
    observe_failovers(_targets(done.attempts))
    unknown = done.cost_source is CostSource.UNKNOWN or done.cost_picousd is None
    return {
        "x-aigateway-cost-usd": "unknown" if unknown else usd_text(done.cost_picousd or 0),
        "x-aigateway-overhead-ms": _overhead_ms(started, done.latency_us, done.provider, done.model),
        **_origin(done.provider, done.model, len(done.attempts), done.answer.dropped),
    }


def stream_headers(stream: OpenStream, started: float) -> dict[str, str]:
    """What is known at the start: this call is under way, so it counts as an attempt."""
    observe_failovers([*_targets(stream.attempts), (stream.provider, stream.model)])
    waited_us = sum(attempt.latency_us for attempt in stream.attempts) + (stream.ttft_us or 0)
    return {
        "x-aigateway-overhead-ms": _overhead_ms(started, waited_us, stream.provider, stream.model),
        **_origin(stream.provider, stream.model, len(stream.attempts) + 1, stream.dropped),
    }


def failed_headers(error: AIGatewayError) -> dict[str, str]:
    """The headers of a call that no upstream answered; none where none was asked."""
    if not isinstance(error, ProviderError) or error.provider is None:
        return {}
    observe_failovers(_targets(error.attempts))
    known = [attempt.cost_picousd for attempt in error.attempts]
    cost = "unknown" if None in known else usd_text(sum(cost or 0 for cost in known))
    origin = _origin(error.provider, error.model or "", len(error.attempts), ())
    return {"x-aigateway-cost-usd": cost, **origin}


def answer_summary(done: Completed) -> Json:
    """The `aigateway` object of a whole answer."""
    return {
        "cost_usd": None if done.cost_picousd is None else to_usd(done.cost_picousd),
        "cost_source": done.cost_source.value,
        "latency_ms": done.latency_us / 1000,
        "provider": done.provider,
        "model": done.model,
        "attempts": [_attempt(attempt) for attempt in done.attempts],
    }


def stream_summary(stream: OpenStream) -> Json:
    """The `aigateway` object of a stream that has ended."""
    return {
        "cost_usd": None if stream.cost_picousd is None else to_usd(stream.cost_picousd),
        "cost_source": stream.cost_source.value,
        "latency_ms": sum(attempt.latency_us for attempt in stream.attempts) / 1000,
        "provider": stream.provider,
        "model": stream.model,
        "attempts": [_attempt(attempt) for attempt in stream.attempts],
    }


def _targets(attempts: Sequence[AttemptInfo]) -> list[tuple[str, str]]:
    return [(attempt.provider, attempt.model) for attempt in attempts]


def _attempt(attempt: AttemptInfo) -> Json:
    return {
        "id": attempt.id,
        "provider": attempt.provider,
        "model": attempt.model,
        "success": attempt.success,
        "latency_ms": attempt.latency_us / 1000,
        "cost_usd": None if attempt.cost_picousd is None else to_usd(attempt.cost_picousd),
        "status_code": attempt.status_code,
        "error_class": attempt.error_class.value if attempt.error_class else None,
        "error": attempt.error,
    }


def _overhead_ms(started: float, upstream_us: int, provider: str, model: str) -> str:
    """What this process added to the upstream's own time; also observed in the metrics."""
    seconds = max(0.0, time.perf_counter() - started - upstream_us / 1_000_000)
    observe_overhead(seconds, provider, model)
    return f"{seconds * 1000:.3f}"


def _origin(provider: str, model: str, attempts: int, dropped: tuple[str, ...]) -> dict[str, str]:
    headers = {
        "x-aigateway-provider": provider,
        "x-aigateway-model": model,
        "x-aigateway-attempts": str(attempts),
    }
    return headers | {"x-aigateway-dropped": _listed(dropped)} if dropped else headers


def _listed(names: tuple[str, ...]) -> str:
    """The names as far as a header may hold them: clients and proxies refuse an answer whose headers are too large."""
    told = ", ".join(names)
    if len(told) <= _LONGEST_LIST:
        return told
    shown = told[:_LONGEST_LIST].rpartition(", ")[0]
    return f"{shown or told[:_LONGEST_LIST]} ... ({len(names)} in all)"
