"""Builds the configured providers. `simulated` is always among them."""

from collections.abc import Iterable, Mapping

from providers.anthropic import AnthropicProvider
from providers.http import HttpClient
from providers.ollama import OllamaProvider
from providers.openai import OpenAIProvider
from providers.provider import Provider, ProviderConfig
from providers.simulated import SimulatedProvider

SIMULATED = "simulated"


def build_providers(
    configs: Iterable[ProviderConfig], http: HttpClient, *, known: Mapping[str, Provider] | None = None
) -> dict[str, Provider]:
    """One provider per configuration, by name and in order; `simulated` last unless it is configured.

    Those of `known` whose configuration is the same are kept.
    """
    wanted = {config.name: config for config in configs}
    wanted.setdefault(SIMULATED, ProviderConfig(name=SIMULATED, type="simulated"))
    kept = {name: provider for name, provider in (known or {}).items() if provider.config == wanted.get(name)}
    return {name: kept.get(name) or _build(config, http) for name, config in wanted.items()}


def _build(config: ProviderConfig, http: HttpClient) -> Provider:
    match config.type:
        case "openai":
            return OpenAIProvider(config, http)
        case "anthropic":
            return AnthropicProvider(config, http)
        case "ollama":
            return OllamaProvider(config, http)
        case "simulated":
            return SimulatedProvider(config)
