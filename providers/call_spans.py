"""What a call of a model looks like in a trace, by OpenTelemetry's conventions for generative AI. Nothing of what was said is in it."""

from urllib.parse import urlsplit

from engine.free_calls import work_of
from engine.ledger import CallKind, Intent, Settlement
from engine.money import to_usd
from engine.tracing import Attributes, Work
from providers.errand import Errand
from providers.provider import Json, ProviderConfig
from providers.received import Received
from providers.routing import Candidate
from providers.shapes import as_object, as_objects, as_text

_OPERATIONS = {CallKind.CHAT: "chat", CallKind.EMBEDDINGS: "embeddings", CallKind.COUNT_TOKENS: "count_tokens"}
_TOO_LARGE = 2**63
_PORTS = {"http": 80, "https": 443}
_NAMES_OF_HOSTS = {
    "generativelanguage.googleapis.com": "gcp.gemini",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}
"""What the conventions call services that speak OpenAI's language too."""


def as_work(errand: Errand, candidate: Candidate, intent: Intent, got: Received, ended: Settlement) -> Work:
    """One upstream call: a failover shows as several, one behind the other."""
    operation, model = _OPERATIONS[errand.kind], candidate.model
    return work_of(
        intent,
        ended,
        name=f"{operation} {model}",
        kind="client",
        attributes={
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": model,
            **_where(candidate.provider.config),
            **_asked(errand.body, streamed=errand.streamed),
            **_used(ended),
            **_answered(got, ended),
            "aigateway.requested_model": errand.route.requested,
        },
    )


def _where(config: ProviderConfig) -> Attributes:
    url = urlsplit(config.url)
    name = _NAMES_OF_HOSTS.get(url.hostname or "", config.type) if config.type == "openai" else config.type
    return {
        "gen_ai.provider.name": name,
        "aigateway.provider": config.name,
        "server.address": url.hostname,
        "server.port": (url.port or _PORTS.get(url.scheme)) if url.hostname else None,
    }


def _asked(body: Json, *, streamed: bool) -> Attributes:
    return {
        "gen_ai.request.stream": streamed or None,
        "gen_ai.request.max_tokens": _number(body.get("max_completion_tokens") or body.get("max_tokens")),
        "gen_ai.request.temperature": _number(body.get("temperature")),
        "gen_ai.request.top_p": _number(body.get("top_p")),
    }


def _used(ended: Settlement) -> Attributes:
    cost = None if ended.cost_picousd is None else to_usd(ended.cost_picousd)
    told: dict[str, str | int | float | None] = {"aigateway.cost_usd": cost, "aigateway.cost_source": ended.cost_source}
    if ended.status_code is not None and ended.error_class is not None:
        told["http.response.status_code"] = ended.status_code
    if ended.usage is not None:
        told |= {
            "gen_ai.usage.input_tokens": ended.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": ended.usage.output,
            "gen_ai.usage.cache_read.input_tokens": ended.usage.cache_read or None,
            "gen_ai.usage.cache_write.input_tokens": ended.usage.cache_writes or None,
            "gen_ai.usage.reasoning.output_tokens": ended.usage.reasoning or None,
        }
    return told


def _answered(got: Received, ended: Settlement) -> Attributes:
    reasons = [got.finish_reason] if got.finish_reason else []
    first = got.first_chunk
    told: Json = {} if first is None else as_object(first.body.get("message")) or first.body
    if got.answer is not None:
        told = got.answer.body
        own = as_text(told.get("stop_reason"))  # Anthropic's
        reasons = [own] if own else [as_text(one.get("finish_reason")) for one in as_objects(told.get("choices"))]
    return {
        "gen_ai.response.model": as_text(told.get("model")) or None,
        "gen_ai.response.id": as_text(told.get("id")) or None,
        "gen_ai.response.finish_reasons": [reason for reason in reasons if reason] or None,
        "gen_ai.response.time_to_first_chunk": None if ended.ttft_us is None else ended.ttft_us / 1_000_000,
    }


def _number(value: object) -> int | float | None:
    """As a span can hold it: integers have 64 bits there."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if -_TOO_LARGE <= value < _TOO_LARGE else float(value)
