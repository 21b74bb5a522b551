"""What the rows inside an agent stand for: `research[3].model` is its fourth question to the model, `research[3].web_search` a call
that the answer asked for. Pure; no definition holds such steps, they are made from the agent's own.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from engine.definition import NOTHING, Step

AGENT = "agent"
ASK, CALL = "agent_model", "agent_tool"  # types of the steps inside; their rows show as llm and mcp_tool
INSIDE = frozenset({ASK, CALL})
MODEL = "model"  # the last part of the key of a question
DEFAULT_MAX_TURNS = 10
APPROVE = "approve"  # the signal that answers a call which waits for approval
ANY_TOOL = "*"
_KEY_ROOM = 40  # characters of a tool's name in a key
LONGEST_KEY_INSIDE = len("[99999].") + _KEY_ROOM + len("_128")
_CALL_FIELDS = ("approve", "approve_timeout")


def step_inside(agent: Step, name: str) -> Step:
    """The step of the row whose key ends in `name`. Its path is the agent's, so that what a run says of the agent holds for it."""
    if name == MODEL:
        return replace(
            agent, id=MODEL, type=ASK, needs=(), condition=None, output=None, deadline_s=None, on_error="fail", branches={}
        )  # fmt: skip
    return replace(
        agent,
        id=name,
        type=CALL,
        needs=(),
        fields={field: agent.fields[field] for field in _CALL_FIELDS if field in agent.fields},
        condition=None,
        output=None,
        deadline_s=None,
        retry=None,  # as for mcp_tool: only what may be repeated is
        on_error="continue",  # a failed call is the model's to deal with
        branches={},
        reads=NOTHING,
    )


def agent_key(key: str) -> str:
    """The key of the agent that a question or call belongs to: `research` for `research[3].model`."""
    return key[: key.rfind("[", 0, key.rfind("."))]


def max_turns(step: Step) -> int:
    """How many questions an agent may ask."""
    return int(step.fields.get("max_turns", DEFAULT_MAX_TURNS))


def turn_of(key: str) -> int:
    """In which turn a question or call is made."""
    return int(key[key.rfind("[", 0, key.rfind(".")) + 1 : key.rfind("]", 0, key.rfind("."))])


def names_of_calls(tools: Iterable[str]) -> list[str]:
    """The last parts of the keys of one turn's calls: the tools' names, numbered where one comes twice."""
    used = {MODEL}
    names: list[str] = []
    for tool in tools:
        plain = re.sub(r"[^a-z0-9_]+", "_", tool.lower()).strip("_")[:_KEY_ROOM] or "call"
        name, number = plain, 1
        while name in used:
            number += 1
            name = f"{plain}_{number}"
        used.add(name)
        names.append(name)
    return names


def split_tool(entry: str) -> tuple[str, str]:
    """Server and tool of an entry such as `server/tool` or `server/*`."""
    server, _, tool = entry.partition("/")
    return server, tool


def covered(tool: str, entries: Iterable[str]) -> bool:
    """Whether `server/tool`, or `server/*`, is named by one of the entries."""
    server, _ = split_tool(tool)
    return any(entry in (tool, f"{server}/{ANY_TOOL}") for entry in entries)
