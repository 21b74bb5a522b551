"""Builds the configured providers. `simulated` is always among them."""

from collections.abc import Iterable

from providers.anthropic import AnthropicProvider
from providers.http import HttpClient
from providers.ollama import OllamaProvider
from providers.openai import OpenAIProvider
from providers.provider import Provider, ProviderConfig
from providers.simulated import SimulatedProvider

SIMULATED = "simulated"


def build_providers(configs: Iterable[ProviderConfig], http: HttpClient) -> dict[str, Provider]:
    """One provider per configuration, by name and in order; `simulated` last unless it is configured."""
    providers = {config.name: _build(config, http) for config in configs}
    providers.setdefault(SIMULATED, SimulatedProvider(ProviderConfig(name=SIMULATED, type="simulated")))
    return providers


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
