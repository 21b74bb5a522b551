from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from aigateway.config_keys import Settings
from aigateway.settings import load_settings
from engine.errors import UserError


def load(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    (folder / "aigateway.yaml").write_text(text, encoding="utf-8")
    return load_settings(environ=environ or {}, cwd=folder)


def refused(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(folder, text, environ)
    assert caught.value.code == "invalid_config"
    messages = [mistake.message for mistake in caught.value.details]
    assert caught.value.message == messages[0]
    assert all("\n" not in message for message in messages)
    return messages


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    settings = load_settings(environ={}, cwd=tmp_path)
    assert (settings.server.host, settings.server.port, settings.server.auth) == ("127.0.0.1", 8080, "auto")
    assert settings.database_url == f"sqlite:///{tmp_path}/aigateway.db"
    assert settings.redis_url is None
    assert settings.workflows_dir == tmp_path / "workflows"
    assert list(settings.providers) == ["ollama", "simulated"]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing yet\n", "---\n# nothing\n", "{}"])
def test_an_empty_file_means_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == load_settings(environ={}, cwd=tmp_path / "elsewhere").model_copy(
        update={"database_url": f"sqlite:///{tmp_path}/aigateway.db", "workflows_dir": tmp_path / "workflows"}
    )


def test_everything_the_contract_shows_is_read(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
server: {host: 127.0.0.1, port: 9090, auth: auto, metrics: open}
database_url: postgresql://u:pw@db/gateway
redis_url: redis://127.0.0.1:6379/0
providers:
  openai: {type: openai, api_key: "${OPENAI_API_KEY}", default_model: gpt-6-luna}
  vllm: {type: openai, base_url: http://gpu-box:8000/v1, prices: {"*": {input: 0.05, output: 0}},
         timeouts: {connect: 5s, first_content: 60s, idle: 200ms, total: 10m}}
  sim: {type: simulated, models: {echo: {delay: 200ms, chunks: 20, input: 1, output: 2}, flaky: {reply: "ok", fail: [500, 429]}}}
models:
  local: ollama/qwen2.5:32b-instruct
  fast: {targets: [ollama/llama3.2:1b, openai/gpt-6-luna]}
  exact: {strategy: ordered, targets: [{model: vllm/one}]}
  smart: {strategy: weighted, targets: [{model: vllm/one, weight: 3}, sim/echo]}
budgets: [{name: daily, limit_usd: 5, period: day, scope: all, action: reject, alert_at: [0.5, 0.8, 1.0]}]
unknown_prices: reject
on_client_disconnect: drain
mcp_servers:
  brave-search: {command: npx, args: [-y, "@modelcontextprotocol/server-brave-search"], env: {BRAVE_API_KEY: "${BRAVE}"}}
workflows_dir: flows
webhooks: {alert_url: null, secret: "${AIGATEWAY_WEBHOOK_SECRET}", allow_private_networks: true}
retention: {runs_days: 9, requests_days: 36}
""",
        {"OPENAI_API_KEY": "sk-1", "BRAVE": "b", "AIGATEWAY_WEBHOOK_SECRET": "d2ViaG9vaw=="},
    )
    assert settings.server.port == 9090
    assert settings.database_url == "postgresql://u:pw@db/gateway"
    assert settings.providers["openai"].api_key is not None
    assert settings.providers["openai"].api_key.get_secret_value() == "sk-1"
    vllm = settings.providers["vllm"]
    assert vllm.prices["*"].input == Decimal("0.05")
    assert (vllm.timeouts.idle, vllm.timeouts.total) == (timedelta(milliseconds=200), timedelta(minutes=10))
    assert settings.providers["sim"].models["flaky"].fail == [500, 429]
    assert [target.model for target in settings.models["local"].targets] == ["ollama/qwen2.5:32b-instruct"]
    assert [target.model for target in settings.models["exact"].targets] == ["vllm/one"]
    smart = settings.models["smart"]
    assert (smart.strategy, [target.weight for target in smart.targets]) == ("weighted", [3, None])
    assert settings.mcp_servers["brave-search"].env == {"BRAVE_API_KEY": "b"}
    assert settings.webhooks.allow_private_networks


def test_an_unknown_key_names_file_line_and_the_nearest_key(tmp_path: Path) -> None:
    assert refused(tmp_path, "# a comment\nserver:\n  prot: 8080\n") == [
        'aigateway.yaml:3: server.prot: unknown key, did you mean "port"?'
    ]


def test_a_key_like_no_other_lists_what_is_valid(tmp_path: Path) -> None:
    assert refused(tmp_path, "retention: {zzz: 1}") == [
        "aigateway.yaml:1: retention.zzz: unknown key; valid here: runs_days, requests_days"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {port: many}", "aigateway.yaml:1: server.port: must be a whole number"),
        ("server: {port: true}", "aigateway.yaml:1: server.port: must be a number"),
        ("server: {port: 70000}", "aigateway.yaml:1: server.port: must be at most 65535"),
        ("server: {host: 5}", "aigateway.yaml:1: server.host: must be text (a number needs quotes)"),
        ("server: 8080", "aigateway.yaml:1: server: must be a mapping of keys to values"),
        ("server: {auth: maybe}", "aigateway.yaml:1: server.auth: must be auto, required or off"),
        ("providers: {x: {}}", "aigateway.yaml:1: providers.x.type: is required"),
        ("models: {a: {targets: []}}", "aigateway.yaml:1: models.a.targets: must not be empty"),
        ("models: {a: 5}", "aigateway.yaml:1: models.a: must be a mapping of keys to values"),
        (
            "models: {a: {targets: [b/c], strategy: best}}",
            "a.strategy: must be ordered, weighted, least_latency, least_busy",
        ),
        (
            "models: {a: {strategy: weighted, targets: [{model: x, weight: 0}]}}",
            "targets[0].weight: must be more than 0",
        ),
        (
            "models: {a: {strategy: weighted, targets: [{model: x, weight: -1}]}}",
            "targets[0].weight: must be more than 0",
        ),
        (
            "models: {a: {strategy: weighted, targets: [{model: x, wait: 1}]}}",
            'wait: unknown key, did you mean "weight"?',
        ),
        (
            "models: {a: {strategy: weighted, targets: [{model: x, weight: heavy}]}}",
            "targets[0].weight: must be a number",
        ),
        ("models: {a: {strategy: weighted, targets: [{weight: 1}]}}", "a.targets[0].model: is required"),
        (
            "models:\n  a:\n    targets:\n    - gpt\n    - model: x\n      weight: 2",
            "aigateway.yaml:6: models.a.targets[1].weight: belongs to strategy weighted, and this model's is ordered",
        ),
        (
            "models:\n  a: {targets: [gpt, b]}\n  b: {targets: [c]}\n  c: a",
            "yaml:2: models.a.targets[1]: leads back to itself: a → b → c → a",
        ),
        ("models: {a: a}", "models.a.targets[0]: leads back to itself: a → a"),
        ("providers: {a: {type: ollama, models: {x: {context_length: 0}}}}", "x.context_length: must be at least 1"),
        (
            "providers: {a: {type: ollama, models: {x: {reply: hi}}}}",
            "models of this type take context_length, images, tools",
        ),
        ("budgets: [{name: daily}]", "aigateway.yaml:1: budgets[0].limit_usd: is required"),
        ("budgets: [{name: a, limit_usd: 5, scope: key}]", "aigateway.yaml:1: budgets[0]: scope key needs match"),
        ("budgets: [{name: a, limit_usd: 5, match: x}]", "aigateway.yaml:1: budgets[0]: scope all takes no match"),
        ("budgets: [{name: a, limit_usd: 5, scope: tag, match: x}]", "match of scope tag must be key:value"),
        ("budgets: [{name: a, limit_usd: 5, zone: Mars}]", "budgets[0]: zone must be a time zone such as UTC"),
        ("budgets: [{name: a, limit_usd: -1}]", "budgets[0].limit_usd: must be at least 0"),
        ("budgets: [{name: a, limit_usd: 5, alert_at: [0]}]", "budgets[0].alert_at[0]: must be"),
        ("budgets: [{name: a, limit_usd: 5, perod: day}]", "budgets[0].perod: "),
        (
            "budgets:\n- {name: a, limit_usd: 5}\n- {name: a, limit_usd: 5}",
            'yaml:3: budgets[1].name: there is another budget "a"',
        ),
        ("database_url: mysql://x", "aigateway.yaml:1: database_url: must be sqlite:///FILE or postgresql://"),
        ("redis_url: 127.0.0.1:6379", "aigateway.yaml:1: redis_url: must be redis://"),
        ("webhooks: {alert_url: ftp://x}", "webhooks.alert_url: must start with http:// or https://"),
        ("providers: {a: {type: openai, timeouts: {idle: soon}}}", "providers.a.timeouts.idle: not a duration"),
        ("providers: {a: {type: openai, models: {m: {reply: x}}}}", "behaviour belongs to type simulated"),
        ("providers: {a: {type: simulated, models: {m: {fail: [200]}}}}", "models.m.fail[0]: must be a status"),
        ("mcp_servers: {a: {comand: x}}", "aigateway.yaml:1: mcp_servers.a.comand: "),
        ("mcp_servers: {a: {args: [x]}}", "aigateway.yaml:1: mcp_servers.a: needs exactly one of"),
        ("- a\n- b\n", "aigateway.yaml:1: must be a mapping of keys to values"),
        ("just text", "aigateway.yaml:1: must be a mapping of keys to values"),
        (
            "server: {port: 1}\nserver: {port: 2}\n",
            "aigateway.yaml:2: the key 'server' is given twice, first in line 1",
        ),
        ("server:\n\tport: 1\n", "aigateway.yaml:2: not YAML"),
        ("server: {port: 1", "not YAML"),
        ("a: &a [*a]", "holds itself"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    messages = refused(tmp_path, text)
    assert message in messages[0]
    assert messages[0].startswith("aigateway.yaml:")


def test_all_mistakes_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    messages = refused(tmp_path, "server:\n  prot: 1\n  auth: no\nredis_url: x\nunknown_prices: ${NOT_THERE}\n")
    assert [message.split(":")[1] for message in messages] == ["2", "3", "4", "5"]


def test_yaml_is_read_as_1_2(tmp_path: Path) -> None:
    settings = load(tmp_path, "server: {auth: off}\nproviders: {x: {type: openai, default_model: on}}")
    assert settings.server.auth == "off"
    assert settings.providers["x"].default_model == "on"


def test_a_target_of_an_unknown_provider_is_found_at_start(tmp_path: Path) -> None:
    assert refused(tmp_path, "models:\n  fast:\n    targets:\n      - olama/x\n      - openai/y\n") == [
        'aigateway.yaml:4: models.fast.targets[0]: provider "olama" is not configured',
        'aigateway.yaml:5: models.fast.targets[1]: provider "openai" is not configured; set OPENAI_API_KEY or add it',
    ]


def test_a_named_file_has_to_exist_and_a_default_one_does_not(tmp_path: Path) -> None:
    for environ, path in (({}, "other.yaml"), ({"AIGATEWAY_CONFIG": "other.yaml"}, None)):
        with pytest.raises(UserError, match=r"^other\.yaml: no such file$"):
            load_settings(config_path=path, environ=environ, cwd=tmp_path)
    (tmp_path / "other.yaml").write_text("server: {port: 1}")
    assert load_settings(config_path="other.yaml", environ={}, cwd=tmp_path).server.port == 1
    assert load_settings(environ={"AIGATEWAY_CONFIG": "other.yaml"}, cwd=tmp_path).server.port == 1


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "aigateway.yaml").write_bytes(b"server: \xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        load_settings(environ={}, cwd=tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        load_settings(config_path="folder", environ={}, cwd=tmp_path)


def test_relative_paths_are_taken_from_the_working_folder(tmp_path: Path) -> None:
    assert load(tmp_path, "database_url: sqlite:///data/x.db").database_url == f"sqlite:///{tmp_path}/data/x.db"
    assert load(tmp_path, "database_url: sqlite:////srv/x.db").database_url == "sqlite:////srv/x.db"
    assert load(tmp_path, "database_url: postgres://h/x").database_url == "postgresql://h/x"


def test_no_secret_is_shown(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
database_url: postgresql://u:s3cret@db/x
redis_url: redis://:s3cret@r/0
providers: {x: {type: openai, api_key: s3cret, headers: {X-Key: s3cret}, base_url: "http://u:s3cret@h"}}
webhooks: {secret: czNjcmV0, alert_url: "https://h/?k=s3cret"}
mcp_servers: {m: {command: c, args: [--key=s3cret], env: {K: s3cret}}, n: {url: "https://h", headers: {A: s3cret}}}
""",
    )
    assert "s3cret" not in repr(settings) + str(settings)
    for text in (
        "providers: {x: {type: s3cret, api_key: [s3cret]}}",
        "webhooks: {secret: {a: s3cret}}",
        "database_url: s3cret",
        "server: {port: s3cret}",
        "mcp_servers: {m: {url: s3cret}}",
        "providers: {x: {type: openai, base_url: s3cret}}",
    ):
        assert "s3cret" not in "".join(refused(tmp_path, text))


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = load_settings(environ={}, cwd=tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # pyright: ignore[reportAttributeAccessIssue]
