"""Token counts: OpenAI's usage object to and from the ledger's disjoint buckets, and the estimate where nobody counted."""

from decimal import Decimal, InvalidOperation
from typing import Any

from engine.ledger import Usage
from engine.money import to_picousd
from engine.token_estimate import BYTES_PER_TOKEN, estimate_tokens
from providers.provider import Json
from providers.shapes import as_count, as_list, as_object, as_objects, told_count

IMAGE_TOKENS = 1000  # about what a full-size picture costs; its base64 text is not read as tokens
MESSAGE_TOKENS = 4  # the frame around each message
_LARGEST_COST_USD = 1_000_000  # of one call; more is a mistake of the upstream, and would not fit a column
_PICO_PER_TICK = 100
_PROMPT_KEYS = ("input", "system", "instructions", "tools", "response_format", "output_config", "text")


def usage_from_openai(told: Any) -> Usage | None:
    """OpenAI's `usage` in disjoint buckets (its `prompt_tokens` includes cached ones), or None where it tells no counts that make sense.

    xAI and Gemini leave what was thought out of `completion_tokens` and charge for it as output: it is in `total_tokens` alone.
    """
    fields = as_object(told)
    prompt, output = told_count(fields, "prompt_tokens"), told_count(fields, "completion_tokens")
    if prompt is None or output is None or not prompt + output:
        return None
    details = as_object(fields.get("prompt_tokens_details"))
    cached = as_count(details.get("cached_tokens"))
    if cached is None:
        cached = as_count(fields.get("prompt_cache_hit_tokens")) or 0  # DeepSeek's name
    written = as_count(details.get("cache_write_tokens")) or 0
    reasoning = as_count(as_object(fields.get("completion_tokens_details")).get("reasoning_tokens")) or 0
    if cached + written <= prompt:
        output = max(output, (as_count(fields.get("total_tokens")) or 0) - prompt)
    return Usage(
        input=max(0, prompt - cached - written),
        cache_read=cached,
        cache_write=written,
        output=output,
        reasoning=reasoning,
    )


def usage_to_openai(usage: Usage) -> Json:
    """The ledger's buckets as OpenAI's `usage`; details only where there is something to tell."""
    told: Json = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output,
        "total_tokens": usage.total_tokens,
    }
    if usage.cache_read or usage.cache_writes:
        told["prompt_tokens_details"] = {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_writes}
    if usage.reasoning:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return told


def reported_cost_picousd(told: Any) -> int | None:
    """The price that an upstream names itself: OpenRouter's `usage.cost` and Perplexity's `usage.cost.total_cost` in USD, and

    xAI's `usage.cost_in_usd_ticks` of 10^-10 USD (docs.x.ai, cost tracking).
    """
    fields = as_object(told)
    if (ticks := _ticks(fields.get("cost_in_usd_ticks"))) is not None:
        return ticks * _PICO_PER_TICK
    cost: Any = fields.get("cost")
    if isinstance(cost, dict):
        cost = as_object(cost).get("total_cost")  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(cost, bool) or not isinstance(cost, (int, float, str)):
        return None
    try:
        usd = Decimal(str(cost))
    except InvalidOperation:
        return None
    return to_picousd(usd) if usd.is_finite() and 0 <= usd <= _LARGEST_COST_USD else None


def _ticks(told: Any) -> int | None:
    most = _LARGEST_COST_USD * 10**12 // _PICO_PER_TICK
    return told if isinstance(told, int) and not isinstance(told, bool) and 0 <= told <= most else None


def estimate_prompt_tokens(body: Json) -> int:
    """About how many input tokens a body has, whatever its dialect: texts, tools, schema and pictures."""
    tokens = sum(_tokens_in(body[key]) for key in _PROMPT_KEYS if key in body)
    for message in as_list(body.get("messages")):
        tokens += MESSAGE_TOKENS + _tokens_in(message)
    return tokens


def asks_for_an_hour(body: Json) -> bool:
    """Whether a body asks Anthropic to keep what it writes to its cache for an hour (`cache_control`, on any part or block)."""
    places = [body, *as_objects(body.get("system")), *as_objects(body.get("tools"))]
    for message in as_objects(body.get("messages")):
        places += [message, *as_objects(message.get("content"))]
    return any(_for_an_hour(place) or any(map(_for_an_hour, as_objects(place.get("content")))) for place in places)


def _for_an_hour(place: Json) -> bool:
    return "cache_control" in place and as_object(place["cache_control"]).get("ttl") == "1h"


def _tokens_in(value: Any) -> int:
    """Texts anywhere inside `value`; a token list of an embeddings request counts one each."""
    if isinstance(value, str):
        return _tokens_of_text(value)
    if isinstance(value, dict):
        if as_object(value).get("type") == "base64":  # pyright: ignore[reportUnknownArgumentType] - Anthropic's pictures
            return IMAGE_TOKENS
        return sum(map(_tokens_in, as_object(value).values()))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return sum(map(_tokens_in, as_list(value)))  # pyright: ignore[reportUnknownArgumentType]
    return 1 if isinstance(value, int) and not isinstance(value, bool) else 0


def _tokens_of_text(text: str) -> int:
    """A picture or another file in a data URI is worth so much whatever its size, a text file what its text is."""
    if not text.startswith("data:"):
        return estimate_tokens(text)
    if text.startswith("data:text/"):
        return max(1, len(text) * 3 // 4 // BYTES_PER_TOKEN)  # base64
    return IMAGE_TOKENS
