"""Whether a provider can be used, found out by a call that costs nothing: its list of models. Books nothing, changes nothing."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import DEFAULT_BASE_URLS, Provider


class ProviderHealth(StrEnum):
    """`missing_key` and `bad_key`: it wants another key; `wrong_address`: something answers there, but not this API."""

    OK = "ok"
    MISSING_KEY = "missing_key"
    BAD_KEY = "bad_key"
    UNREACHABLE = "unreachable"
    WRONG_ADDRESS = "wrong_address"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Checkup:
    """How a provider is. `models` is what it lists, None where it could not be asked; `message` says why."""

    provider: str
    health: ProviderHealth
    message: str
    models: Sequence[str] | None = None


async def check_provider(provider: Provider, *, timeout_s: float = 5.0) -> Checkup:
    """Ask a provider for its models. Never raises."""
    config = provider.config
    address = config.url or "this process"
    try:
        async with asyncio.timeout(timeout_s):
            models = await provider.list_models()
    except TimeoutError:
        return Checkup(config.name, ProviderHealth.UNREACHABLE, f"{address} did not answer within {timeout_s:g} s")
    except ProviderError as error:
        return Checkup(config.name, _health(error, has_key=bool(config.api_key)), f"{address}: {_short(error.message)}")
    if not models and config.type in ("openai", "anthropic"):
        return Checkup(config.name, ProviderHealth.WRONG_ADDRESS, f"{address} lists no models: is it this API?", models)
    return Checkup(
        config.name, ProviderHealth.OK, f"{len(models)} model{'s' * (len(models) != 1)} at {address}", models
    )


def is_assumed(provider: Provider) -> bool:
    """Whether nobody asked for it: an Ollama on this machine is looked for without any configuration."""
    config = provider.config
    return config.name == config.type == "ollama" and config.url == DEFAULT_BASE_URLS["ollama"]


def _health(error: ProviderError, *, has_key: bool) -> ProviderHealth:
    if error.error_class is ErrorClass.AUTH or error.status in (401, 403):
        return ProviderHealth.BAD_KEY if has_key else ProviderHealth.MISSING_KEY
    if error.status is None and error.error_class in (ErrorClass.CONNECTION, ErrorClass.TIMEOUT):
        return ProviderHealth.UNREACHABLE
    no_api = error.status is None or error.status in (404, 405) or 300 <= error.status < 400
    return ProviderHealth.WRONG_ADDRESS if no_api else ProviderHealth.FAILING


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}…"
