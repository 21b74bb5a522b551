import json
from pathlib import Path
from typing import Any

import pytest

from aigateway.settings import load_settings
from engine.errors import UserError

SERVERS: dict[str, Any] = {
    "git": {
        "command": "uvx",
        "args": ["mcp-server-git"],
        "env": {"TOKEN": "${GIT_TOKEN}"},
        "autoApprove": ["x"],
        "icon": 1,
    },
    "docs": {"type": "http", "url": "https://example.com/mcp"},
    "off": {"command": "x", "disabled": True},
}


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value, indent="\t"), encoding="utf-8")


def messages(folder: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_settings(environ={}, cwd=folder)
    return [mistake.message for mistake in caught.value.details]


@pytest.mark.parametrize("shape", ["mcpServers", "mcp.servers"])
def test_servers_are_read_from_other_programs_files(tmp_path: Path, shape: str) -> None:
    content = (
        {"mcpServers": SERVERS, "theme": "dark"} if shape == "mcpServers" else {"mcp": {"servers": SERVERS}, "x": 1}
    )
    write(tmp_path, "tools.json", content)
    (tmp_path / "aigateway.yaml").write_text("mcp_servers: tools.json")
    servers = load_settings(environ={"GIT_TOKEN": "t"}, cwd=tmp_path).mcp_servers
    assert list(servers) == ["git", "docs"]
    assert servers["git"].env == {"TOKEN": "t"}
    assert servers["docs"].url == "https://example.com/mcp"


def test_of_several_files_the_later_one_counts(tmp_path: Path) -> None:
    write(tmp_path, "a.json", {"mcpServers": {"x": {"command": "a"}, "y": {"command": "a"}}})
    write(tmp_path, "b.json", {"mcpServers": {"x": {"command": "b"}}})
    (tmp_path / "aigateway.yaml").write_text(f"mcp_servers: [a.json, {tmp_path}/b.json]")
    servers = load_settings(environ={}, cwd=tmp_path).mcp_servers
    assert (servers["x"].command, servers["y"].command) == ("b", "a")


def test_mistakes_in_such_a_file_name_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "tools.json",
        {"mcpServers": {"git": {"command": "x", "env": {"T": "${NOT_SET}"}}, "bad": {"args": []}}},
    )
    (tmp_path / "aigateway.yaml").write_text("mcp_servers: tools.json")
    found = messages(tmp_path)
    assert found[0].startswith(f"{tmp_path}/tools.json:6: mcp_servers.git.env.T: environment variable NOT_SET")
    assert found[1].startswith(f"{tmp_path}/tools.json:9: mcp_servers.bad: needs exactly one of")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"mcpServers": {', "tools.json:1: not valid JSON"),
        ('{"servers": {}}', 'tools.json: holds no "mcpServers" object'),
        ("[1]", "must be a mapping"),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "the key 'a' is given twice"),
    ],
)
def test_a_file_that_holds_no_servers_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tools.json").write_text(content)
    (tmp_path / "aigateway.yaml").write_text("mcp_servers: tools.json")
    assert message in messages(tmp_path)[0]


def test_a_file_that_is_not_there_is_named_with_the_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "aigateway.yaml").write_text("mcp_servers:\n  - nowhere.json\n  - 5\n")
    assert messages(tmp_path) == [
        f"aigateway.yaml:2: mcp_servers[0]: {tmp_path}/nowhere.json cannot be read: No such file or directory",
        "aigateway.yaml:3: mcp_servers[1]: must be a mapping of servers, or the path of an mcpServers JSON file, or a list of such",
    ]
