from collections.abc import Mapping
from pathlib import Path

import pytest

from aigateway.config_environment import ollama_url
from aigateway.config_keys import Settings
from aigateway.settings import load_settings, tools_environment
from engine.errors import UserError


def load(folder: Path, environ: Mapping[str, str], text: str = "") -> Settings:
    (folder / "aigateway.yaml").write_text(text, encoding="utf-8")
    return load_settings(environ=environ, cwd=folder)


def refused(folder: Path, environ: Mapping[str, str], text: str = "") -> list[str]:
    with pytest.raises(UserError) as caught:
        load(folder, environ, text)
    return [mistake.message for mistake in caught.value.details]


def secret(settings: Settings, provider: str) -> str | None:
    key = settings.providers[provider].api_key
    return key.get_secret_value() if key else None


def test_variables_override_the_file(tmp_path: Path) -> None:
    environ = {
        "AIGATEWAY_SERVER__PORT": "9000",
        "AIGATEWAY_REDIS_URL": "redis://h/1",
        "AIGATEWAY_PROVIDERS__VLLM__BASE_URL": "http://new/v1",
        "AIGATEWAY_PROVIDERS__VLLM__API_KEY": "12345",
        "AIGATEWAY_WEBHOOKS__ALLOW_PRIVATE_NETWORKS": "true",
        "AIGATEWAY_MODELS__FAST": "{targets: [vllm/a, ollama/b]}",
        "AIGATEWAY_MODELS__LOCAL": "ollama/x:1b",
        "AIGATEWAY_UNKNOWN_PRICES": "",
    }
    settings = load(
        tmp_path, environ, "server: {port: 1, host: '::1'}\nproviders: {vllm: {type: openai}}\nunknown_prices: reject"
    )
    assert (settings.server.port, settings.server.host) == (9000, "::1")
    assert settings.redis_url == "redis://h/1"
    assert settings.providers["vllm"].base_url == "http://new/v1"
    assert secret(settings, "vllm") == "12345"
    assert settings.webhooks.allow_private_networks is True
    assert [target.model for target in settings.models["fast"].targets] == ["vllm/a", "ollama/b"]
    assert [target.model for target in settings.models["local"].targets] == ["ollama/x:1b"]
    assert settings.unknown_prices == "reject"  # an empty variable counts as not given


def test_a_variable_finds_a_key_with_a_hyphen(tmp_path: Path) -> None:
    text = "mcp_servers: {brave-search: {url: http://a}}"
    settings = load(tmp_path, {"AIGATEWAY_MCP_SERVERS__BRAVE_SEARCH__URL": "http://b"}, text)
    assert settings.mcp_servers["brave-search"].url == "http://b"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AIGATEWAY_SERVR__PORT", 'AIGATEWAY_SERVR__PORT: no such setting, did you mean "AIGATEWAY_SERVER__PORT"?'),
        ("AIGATEWAY_SERVER_PORT", 'AIGATEWAY_SERVER_PORT: no such setting, did you mean "AIGATEWAY_SERVER__PORT"?'),
        ("AIGATEWAY_DATABASE", 'AIGATEWAY_DATABASE: no such setting, did you mean "AIGATEWAY_DATABASE_URL"?'),
        (
            "AIGATEWAY_PROVIDERS__X__API_KY",
            'AIGATEWAY_PROVIDERS__X__API_KY: no such setting, did you mean "AIGATEWAY_PROVIDERS__X__API_KEY"?',
        ),
        (
            "AIGATEWAY_QQQQ",
            "AIGATEWAY_QQQQ: no such setting, variables that start with AIGATEWAY_ set keys of aigateway.yaml",
        ),
    ],
)
def test_an_unknown_variable_is_a_mistake(tmp_path: Path, name: str, message: str) -> None:
    assert refused(tmp_path, {name: "1"}) == [message]


def test_a_wrong_value_names_its_variable(tmp_path: Path) -> None:
    assert refused(tmp_path, {"AIGATEWAY_SERVER__PORT": "abc"}, "server: {port: 1}") == [
        "AIGATEWAY_SERVER__PORT: must be a whole number"
    ]
    assert refused(tmp_path, {"AIGATEWAY_MODELS__A": "{targets: ["}) == ["AIGATEWAY_MODELS__A: is not valid YAML"]


def test_some_variables_are_no_settings(tmp_path: Path) -> None:
    environ = {"AIGATEWAY_API_KEY": "k", "AIGATEWAY_URL": "http://x", "AIGATEWAY_WEBHOOK_SECRET": "d2ViaG9vaw=="}
    settings = load(tmp_path, environ, 'webhooks: {secret: "${AIGATEWAY_WEBHOOK_SECRET}"}')
    assert settings.webhooks.secret is not None
    assert settings.webhooks.secret.get_secret_value() == "d2ViaG9vaw=="
    kubernetes = {
        "AIGATEWAY_PORT": "tcp://10.0.0.1:80",
        "AIGATEWAY_SERVICE_HOST": "10.0.0.1",
        "AIGATEWAY_PORT_80_TCP": "x",
    }
    load(tmp_path, {**kubernetes, "KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert len(refused(tmp_path, kubernetes)) == 3


def test_values_read_the_environment(tmp_path: Path) -> None:
    text = """
server: {port: "${PORT:-8181}", host: "${HOST_NAME}"}
workflows_dir: "a${MIDDLE:-b}c/$${LITERAL}"
providers: {x: {type: openai, default_model: "${EMPTY:-standard}", headers: {A: "Bearer ${T}"}}}
"""
    settings = load(tmp_path, {"HOST_NAME": "localhost", "EMPTY": "", "T": "t"}, text)
    assert (settings.server.port, settings.server.host) == (8181, "localhost")
    assert settings.workflows_dir == tmp_path / "abc/${LITERAL}"
    assert settings.providers["x"].default_model == "standard"
    assert settings.providers["x"].headers["A"].get_secret_value() == "Bearer t"


def test_a_missing_variable_names_file_line_and_key(tmp_path: Path) -> None:
    assert refused(tmp_path, {}, "providers:\n  x:\n    type: openai\n    api_key: ${NO_KEY}\n") == [
        "aigateway.yaml:4: providers.x.api_key: environment variable NO_KEY is not set (${NO_KEY:-} would allow that)"
    ]
    assert "holds the name of an environment variable" in refused(tmp_path, {}, 'redis_url: "${no name}"')[0]


def test_a_missing_variable_is_reported_once(tmp_path: Path) -> None:
    assert len(refused(tmp_path, {}, 'server: {port: "${NO_PORT}"}')) == 1


def test_standard_variables_need_no_file(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "g", "OPENROUTER_API_KEY": ""}
    settings = load_settings(environ=environ, cwd=tmp_path)
    assert list(settings.providers) == ["openai", "anthropic", "gemini", "ollama", "simulated"]
    assert secret(settings, "anthropic") == "a"
    assert settings.providers["gemini"].type == "openai"
    assert settings.providers["gemini"].base_url == "https://generativelanguage.googleapis.com/v1beta/openai/"


def test_standard_variables_complete_what_the_file_mentions(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "g"}
    text = """
providers:
  openai: {default_model: gpt-6-luna}
  anthropic: {type: anthropic, base_url: http://elsewhere}
  gemini: {api_key: own}
"""
    settings = load(tmp_path, environ, text)
    assert settings.providers["openai"].type == "openai"
    assert secret(settings, "openai") == "o"
    assert secret(settings, "anthropic") is None  # a key never goes to another host because of a name
    assert secret(settings, "gemini") == "own"
    assert settings.providers["gemini"].base_url is not None


def test_an_empty_key_counts_as_missing(tmp_path: Path) -> None:
    settings = load(tmp_path, {"K": ""}, 'providers: {x: {type: openai, api_key: "${K}"}}')
    assert settings.providers["x"].api_key is None


def test_the_simulated_echo_is_always_there(tmp_path: Path) -> None:
    assert list(load(tmp_path, {}).providers["simulated"].models) == ["echo"]
    text = "providers: {simulated: {type: simulated, models: {slow: {delay: 1s}}}}"
    assert list(load(tmp_path, {}, text).providers["simulated"].models) == ["slow", "echo"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("gpu-box", "http://gpu-box:11434"),
        ("gpu-box:1234", "http://gpu-box:1234"),
        (":1234", "http://127.0.0.1:1234"),
        ("http://gpu-box", "http://gpu-box:80"),
        ("https://gpu.example", "https://gpu.example:443"),
        ("https://gpu.example:8443/ollama/", "https://gpu.example:8443/ollama"),
        ("[::]:11434", "http://127.0.0.1:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("gpu-box:nonsense", "http://gpu-box:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_does(tmp_path: Path, host: str, url: str) -> None:
    assert ollama_url(host) == url
    assert load_settings(environ={"OLLAMA_HOST": host}, cwd=tmp_path).providers["ollama"].base_url == url


def test_programs_of_mcp_servers_inherit_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AIGATEWAY_DATABASE_URL", "AIGATEWAY_API_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OLLAMA_HOST", "gpu-box")
    inherited = tools_environment()
    assert "secret" not in inherited.values()
    assert inherited["OLLAMA_HOST"] == "gpu-box" and "PATH" in inherited
