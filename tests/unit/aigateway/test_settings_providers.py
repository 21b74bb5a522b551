from decimal import Decimal
from pathlib import Path

from aigateway.provider_settings import missing_keys, model_aliases, provider_configs
from aigateway.settings import load_settings
from providers.provider import ModelPrice, SimulatedModel, SimulatedToolCall, Timeouts
from providers.routing import Alias


def test_settings_become_what_the_providers_room_takes(tmp_path: Path) -> None:
    (tmp_path / "aigateway.yaml").write_text(
        """
providers:
  vllm: {type: openai, base_url: http://gpu/v1, api_key: k, default_model: m, models: [m, n], headers: {A: b},
         prices: {"*": {input: 0.05, output: 2, cached_input: 0.01}}, timeouts: {connect: 5s, total: 2m}}
  sim: {type: simulated, models: {flaky: {reply: ok, delay: 200ms, chunks: 3, fail: [500, cut], input: 1, output: 2,
        tokens_in: 7, tool_calls: [{name: search, arguments: {q: 1}}]}}}
models: {fast: {targets: [vllm/m, sim/flaky]}}
"""
    )
    settings = load_settings(environ={}, cwd=tmp_path)
    vllm, sim, ollama, simulated = provider_configs(settings)
    assert (vllm.name, vllm.type, vllm.url, vllm.api_key, vllm.default_model) == (
        "vllm",
        "openai",
        "http://gpu/v1",
        "k",
        "m",
    )
    assert vllm.models == ("m", "n")
    assert vllm.simulated_models == {}
    assert vllm.headers == {"A": "b"}
    assert vllm.prices == {"*": ModelPrice(Decimal("0.05"), Decimal(2), Decimal("0.01"))}
    usual = Timeouts()
    assert vllm.timeouts == Timeouts(5.0, usual.first_content_s, usual.idle_s, 120.0)
    assert sim.simulated_models["flaky"] == SimulatedModel(
        "ok", 0.2, 3, (500, "cut"), Decimal(1), Decimal(2), 7, None, (SimulatedToolCall("search", {"q": 1}),)
    )
    assert (ollama.url, ollama.timeouts) == ("http://127.0.0.1:11434", usual)
    assert simulated.simulated_models == {"echo": SimulatedModel()}
    assert model_aliases(settings) == {"fast": Alias(("vllm/m", "sim/flaky"), "ordered", (1.0, 1.0))}


def test_what_cannot_answer_without_a_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "aigateway.yaml").write_text(
        "providers: {openai: {default_model: x}, own: {type: openai, base_url: http://h/v1}, a: {type: anthropic}}"
    )
    assert missing_keys(load_settings(environ={}, cwd=tmp_path)) == [
        "provider openai has no api_key",
        "provider a has no api_key",
    ]
