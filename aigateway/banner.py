"""What `serve` and `api` print when they are up: the URL, the providers and models found, and what is missing."""

import asyncio
import sys
from collections.abc import Mapping

from aigateway.config_environment import STANDARD_PROVIDERS
from aigateway.config_keys import Settings
from aigateway.provider_settings import missing_keys
from aigateway.wiring import Outgoing
from engine.errors import AIGatewayError, UserError

_SHOWN_MODELS = 8
_LIMIT_S = 5.0


async def print_banner(settings: Settings, outgoing: Outgoing, url: str, file_errors: Mapping[str, UserError]) -> None:
    """The URL at once, the rest as soon as the providers have answered."""
    _say(f"aigateway is up at {url} (dashboard: {url}/dashboard, API: {url}/docs)")
    for error in file_errors.values():
        _say(f"  not taken up: {error.message}")
    for line in missing_keys(settings):
        _say(f"  missing: {line}")
    try:
        async with asyncio.timeout(_LIMIT_S):
            names = [name.id for name in await outgoing.router.list_names()]
    except (TimeoutError, AIGatewayError) as error:
        _say(f"  models: not known yet ({error})")
        return
    _say(f"  providers: {', '.join(settings.providers) or 'none'}")
    more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
    _say(f"  models: {', '.join(names[:_SHOWN_MODELS])}{more}")
    if not any(name.startswith("ollama/") for name in names) and "ollama" in settings.providers:
        _say("  missing: no Ollama answers (set OLLAMA_HOST, or start it for free local models)")
    if all(config.type in ("ollama", "simulated") for config in settings.providers.values()):
        names = [standard.variable for standard in STANDARD_PROVIDERS.values() if standard.type != "ollama"]
        _say(f"  for hosted models set {' or '.join(names)}, or configure providers")


def print_first_key(url: str) -> None:
    """What to do where keys are needed and nobody has one."""
    _say(
        f"  missing: requests to {url} need an API key and there is none yet: make one here with `aigateway keys create NAME`"
    )


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
