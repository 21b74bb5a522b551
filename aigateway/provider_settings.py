"""Turns the `providers` and `models` sections into what the providers room takes. Pure; called by the wiring."""

from datetime import timedelta

from pydantic import SecretStr

from aigateway.config_keys import (
    PriceSettings,
    ProviderModelSettings,
    ProviderSettings,
    Settings,
    SimulatedToolCallSettings,
    TimeoutSettings,
)
from providers.provider import (
    ModelAbilities,
    ModelPrice,
    ProviderConfig,
    SimulatedModel,
    SimulatedToolCall,
    SimulatedTurn,
    Timeouts,
)
from providers.routing import Alias


def provider_configs(settings: Settings) -> list[ProviderConfig]:
    """Every configured provider, in the order of the file, the standard ones behind those that it names."""
    return [_config(name, provider) for name, provider in settings.providers.items()]


def model_aliases(settings: Settings) -> dict[str, Alias]:
    """Each configured name with its targets as they are written, how one is chosen, and how long answers are used again or held back."""
    return {
        name: Alias(
            tuple(target.model for target in model.targets),
            model.strategy,
            tuple(target.weight or 1.0 for target in model.targets),
            None if model.cache is None else model.cache.total_seconds(),
            model.hold_back.total_seconds(),
        )
        for name, model in settings.models.items()
    }


def missing_keys(settings: Settings) -> list[str]:
    """What `serve` says is missing: one sentence for each provider that cannot answer without a key and has none."""
    return [
        f"provider {name} has no api_key"
        for name, provider in settings.providers.items()
        if provider.api_key is None and provider.type in ("openai", "anthropic") and provider.base_url is None
    ]


def _config(name: str, provider: ProviderSettings) -> ProviderConfig:
    simulated = provider.type == "simulated"
    return ProviderConfig(
        name=name,
        type=provider.type,
        base_url=provider.base_url or "",
        api_key=_secret(provider.api_key),
        default_model=provider.default_model,
        models=tuple(provider.models),
        prices={model: _price(price) for model, price in provider.prices.items()},
        timeouts=_timeouts(provider.timeouts),
        headers={header: value.get_secret_value() for header, value in provider.headers.items()},
        abilities={model: _abilities(told) for model, told in provider.models.items()},
        simulated_models={model: _simulated(told) for model, told in provider.models.items()} if simulated else {},
    )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def _price(price: PriceSettings) -> ModelPrice:
    return ModelPrice(
        input=price.input,
        output=price.output,
        cached_input=price.cached_input,
        cache_write=price.cache_write,
        cache_write_1h=price.cache_write_1h,
    )


def _abilities(told: ProviderModelSettings) -> ModelAbilities:
    return ModelAbilities(told.context_length, told.tools, told.images)


def _timeouts(told: TimeoutSettings) -> Timeouts:
    usual = Timeouts()
    return Timeouts(
        connect_s=_seconds(told.connect, usual.connect_s),
        first_content_s=_seconds(told.first_content, usual.first_content_s),
        idle_s=_seconds(told.idle, usual.idle_s),
        total_s=_seconds(told.total, usual.total_s),
    )


def _seconds(told: timedelta | None, usual: float) -> float:
    return usual if told is None else told.total_seconds()


def _simulated(told: ProviderModelSettings) -> SimulatedModel:
    return SimulatedModel(
        reply=told.reply,
        delay_s=told.delay.total_seconds(),
        chunks=told.chunks,
        fail=tuple(told.fail),
        input=told.input,
        output=told.output,
        tokens_in=told.tokens_in,
        tokens_out=told.tokens_out,
        tool_calls=_calls(told.tool_calls),
        script=tuple(SimulatedTurn(turn.reply, _calls(turn.tool_calls)) for turn in told.script),
    )


def _calls(told: list[SimulatedToolCallSettings]) -> tuple[SimulatedToolCall, ...]:
    return tuple(SimulatedToolCall(call.name, call.arguments) for call in told)
