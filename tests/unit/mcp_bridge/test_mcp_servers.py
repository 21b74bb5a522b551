import pytest

from engine.errors import UserError
from mcp_bridge.servers import McpServerConfig, parse_servers

STDIO = {"command": "npx", "args": ["-y", "server"], "env": {"KEY": "v"}}


@pytest.mark.parametrize(
    "data",
    [{"a": STDIO}, {"mcpServers": {"a": STDIO}}, {"mcp": {"servers": {"a": STDIO}}}],
    ids=["bare", "common", "nested"],
)
def test_the_common_shapes_mean_the_same(data):
    assert parse_servers(data) == {
        "a": McpServerConfig(name="a", command="npx", args=("-y", "server"), env={"KEY": "v"})
    }


@pytest.mark.parametrize("data", [{}, {"mcpServers": {}}, {"mcpServers": None}, {"mcp": {"servers": {}}}])
def test_no_servers(data):
    assert parse_servers(data) == {}


@pytest.mark.parametrize("kind", ["http", "streamable-http", "streamableHttp", "streamable_http", None])
def test_an_address_with_every_spelling_of_its_type(kind):
    entry = {"url": "https://example.com/mcp", "headers": {"Authorization": "Bearer x"}}
    config = parse_servers({"docs": entry if kind is None else {**entry, "type": kind}})["docs"]
    assert (config.url, config.transport, config.headers["Authorization"]) == (entry["url"], "http", "Bearer x")


def test_yaml_scalars_become_the_text_that_programs_expect():
    config = parse_servers({"a": {"command": "x", "args": ["--port", 80, 1.5], "env": {"DEBUG": True, "N": 1}}})["a"]
    assert config.args == ("--port", "80", "1.5")
    assert config.env == {"DEBUG": "true", "N": "1"}


@pytest.mark.parametrize(
    ("entry", "connect_s", "call_s"),
    [
        ({}, 15.0, 60.0),
        ({"connect_timeout": "500ms", "call_timeout": "2m"}, 0.5, 120.0),
        ({"connect_timeout": 3, "call_timeout": "1.5h"}, 3.0, 5400.0),
        ({"connectionTimeoutMs": 2500, "requestTimeoutMs": 1000}, 2.5, 1.0),
    ],
)
def test_timeouts(entry, connect_s, call_s):
    config = parse_servers({"a": {"command": "x", **entry}})["a"]
    assert (config.connect_timeout_s, config.call_timeout_s) == (connect_s, call_s)


def test_keys_of_other_clients_are_taken_and_disabled_servers_left_out_in_order():
    entries = {
        "b": {"command": "x", "autoApprove": [], "description": "d", "alwaysAllow": ["t"]},
        "off": {"command": "x", "disabled": True},
        "a": {"command": "x", "disabled": False, "type": "stdio"},
    }
    assert list(parse_servers(entries)) == ["b", "a"]


@pytest.mark.parametrize(
    ("entry", "param", "words"),
    [
        ({"comand": "x"}, "mcp_servers.a.comand", "did you mean `command`?"),
        ({"command": "x", "zzz": 1}, "mcp_servers.a.zzz", "known are command"),
        ({}, "mcp_servers.a", "exactly one of"),
        ({"command": "x", "url": "http://h/mcp"}, "mcp_servers.a", "exactly one of"),
        ("npx", "mcp_servers.a", "must be an object"),
        ({"command": ["npx"]}, "mcp_servers.a.command", "must be text"),
        ({"command": "  "}, "mcp_servers.a.command", "not empty"),
        ({"command": "a\0b"}, "mcp_servers.a.command", "zero byte"),
        ({"command": "x", "args": "-y"}, "mcp_servers.a.args", "must be a list"),
        ({"command": "x", "args": ["a", None]}, "mcp_servers.a.args[1]", "must be text"),
        ({"command": "x", "args": ["a\0"]}, "mcp_servers.a.args[0]", "zero byte"),
        ({"command": "x", "env": ["A=b"]}, "mcp_servers.a.env", "must be an object"),
        ({"command": "x", "env": {"A": {}}}, "mcp_servers.a.env.A", "must be text"),
        ({"command": "x", "headers": {"A": "b"}}, "mcp_servers.a.headers", "no meaning"),
        ({"url": "http://h/mcp", "env": {"A": "b"}}, "mcp_servers.a.env", "no meaning"),
        ({"url": "h/mcp"}, "mcp_servers.a.url", "must start with http://"),
        ({"url": "file:///etc/passwd"}, "mcp_servers.a.url", "must start with http://"),
        ({"url": "http://h/sse", "type": "sse"}, "mcp_servers.a.type", "Streamable HTTP"),
        ({"url": "http://h", "transport": "sse"}, "mcp_servers.a.transport", "Streamable HTTP"),
        ({"url": "http://h", "type": "stdio"}, "mcp_servers.a.type", "needs `command`"),
        ({"command": "x", "type": "http"}, "mcp_servers.a.type", "needs `url`"),
        ({"command": "x", "type": "carrier-pigeon"}, "mcp_servers.a.type", "must be `stdio` or `http`"),
        ({"command": "x", "call_timeout": "soon"}, "mcp_servers.a.call_timeout", "duration"),
        ({"command": "x", "call_timeout": 0}, "mcp_servers.a.call_timeout", "duration"),
        ({"command": "x", "call_timeout": True}, "mcp_servers.a.call_timeout", "duration"),
        ({"command": "x", "requestTimeoutMs": -1}, "mcp_servers.a.requestTimeoutMs", "duration"),
    ],
)
def test_a_wrong_entry_names_its_key(entry, param, words):
    with pytest.raises(UserError) as caught:
        parse_servers({"a": entry})
    assert (caught.value.code, caught.value.param) == ("invalid_config", param)
    assert words in caught.value.message


@pytest.mark.parametrize("name", ["", " ", "a/b"])
def test_names_that_cannot_be_used(name):
    with pytest.raises(UserError, match="usable name"):
        parse_servers({name: STDIO})


def test_the_whole_must_be_an_object():
    with pytest.raises(UserError, match="object of servers"):
        parse_servers({"mcpServers": ["a"]})


def test_a_disabled_entry_is_checked_all_the_same():
    with pytest.raises(UserError):
        parse_servers({"a": {"comand": "x", "disabled": True}})
