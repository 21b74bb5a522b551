from aigateway.config_changes import NEEDS_RESTART, changes_between, merged
from aigateway.config_keys import Settings
from mcp_bridge.servers import McpServerConfig

# Each is taken up by a running process: by `aigateway.wiring.Outgoing`, `api.services.Services`, `worker.rules.Rules` or the database.
LIVE = {
    "providers", "models", "budgets", "unknown_prices", "on_client_disconnect", "mcp_servers", "workflows_dir", "webhooks",
    "retention", "mcp",
}  # fmt: skip


def settings(**told: object) -> Settings:
    return Settings.model_validate(told)


def test_every_section_is_either_taken_up_or_said_to_need_a_restart() -> None:
    assert set(Settings.model_fields) == LIVE | set(NEEDS_RESTART)


def test_nothing_differs_from_itself() -> None:
    same = changes_between(settings(), settings())
    assert (same.live, same.needs_restart) == ({}, [])


def test_changes_are_told_by_section_and_name_without_values() -> None:
    server = McpServerConfig("a", url="http://x/?token=hidden")
    old = settings(
        providers={
            "kept": {"type": "ollama"},
            "gone": {"type": "ollama"},
            "new_key": {"type": "openai", "api_key": "hidden"},
        },
        budgets=[{"name": "day", "limit_usd": 1}],
        mcp_servers={"a": server},
    )
    new = settings(
        providers={
            "kept": {"type": "ollama"},
            "new_key": {"type": "openai", "api_key": "other"},
            "more": {"type": "ollama"},
        },
        budgets=[{"name": "day", "limit_usd": 2}],
        mcp_servers={"a": McpServerConfig("a", url="http://x/")},
        server={"port": 1, "auth": "off"},
        redis_url="redis://:hidden@x:1/0",
    )
    found = changes_between(old, new)
    assert found.live == {
        "providers": {"added": ["more"], "changed": ["new_key"], "removed": ["gone"]},
        "budgets": {"added": [], "changed": ["day"], "removed": []},
        "mcp_servers": {"added": [], "changed": ["a"], "removed": []},
    }
    assert found.needs_restart == ["server.port", "server.auth", "redis_url"]
    assert "hidden" not in repr(found)


def test_what_needs_a_restart_stays_and_is_told_again_at_the_next_reload() -> None:
    old, new = settings(), settings(server={"port": 1}, unknown_prices="reject")
    in_force = merged(old, new)
    assert (in_force.server.port, in_force.unknown_prices) == (8080, "reject")
    again = changes_between(in_force, new)
    assert (again.live, again.needs_restart) == ({}, ["server.port"])
