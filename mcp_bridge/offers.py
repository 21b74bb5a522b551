"""What this gateway offers as an MCP server, in plain data: workflows and connected tools as tools, runs as their results. Pure.

A workflow's tool has its name, its description and its `inputs`. A connected tool that is passed on is called `server__tool`, with a
tail made of a hash where its names hold characters that clients refuse, so that each name stands for one tool and is the same everywhere.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

LONGEST_NAME = 64  # what clients of language models take
_REFUSED = re.compile(r"[^A-Za-z0-9_-]")
_RESULT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "run_id": {"type": "string"},
        "status": {"type": "string"},
        "output": {},
        "error": {"type": ["object", "null"]},
        "cost_usd": {"type": ["number", "null"]},
    },
    "required": ["run_id", "status"],
}
GET_RUN = "get_run"


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as clients see it. The hints are those of a connected tool; a workflow has none."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None = None
    hints: Mapping[str, bool] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A call's result: text for the model, the same as data, and whether it failed."""

    text: str
    data: Mapping[str, Any] | None = None
    failed: bool = False


def workflow_offer(name: str, description: str, inputs: Mapping[str, Mapping[str, Any]] | None) -> Offer:
    """The tool that runs a workflow. Without declared inputs it takes anything."""
    schema: dict[str, Any] = {"type": "object"}
    if inputs is not None:
        schema["properties"] = {key: _moved(told, f"#/properties/{_pointer(key)}") for key, told in inputs.items()}
        schema["required"] = [key for key, told in inputs.items() if "default" not in told]
        schema["additionalProperties"] = False
    return Offer(name, description or f"Runs the workflow {name}.", schema, _RESULT)


def get_run_offer() -> Offer:
    """The one tool of our own: a client that did not wait can ask what became of a run."""
    schema = {"type": "object", "properties": {"run_id": {"type": "string"}}, "required": ["run_id"]}
    text = "Waits up to 20 seconds for a run that was started before, and tells its status and output."
    hints = {"read_only": True, "idempotent": True, "destructive": False}
    return Offer(GET_RUN, text, schema | {"additionalProperties": False}, _RESULT, hints)


def tool_offer(tool: Mapping[str, Any]) -> Offer:
    """A connected tool, as `GET /v1/mcp/tools` lists it, passed on."""
    name = passed_name(tool["server"], tool["name"])
    hints = {key: bool(tool[key]) for key in ("read_only", "idempotent", "destructive")}
    return Offer(name, tool["description"], tool["input_schema"], None, hints)


def passed_name(server: str, tool: str) -> str:
    """The name under which a connected tool is passed on."""
    plain = _REFUSED.sub("_", f"{server}__{tool}")
    if plain == f"{server}__{tool}" and len(plain) <= LONGEST_NAME and "__" not in server and not server.endswith("_"):
        return plain
    tail = hashlib.sha256(f"{server}/{tool}".encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - len(tail) - 1]}-{tail}"


def run_answer(run: Mapping[str, Any]) -> Answer:
    """What a run came to, so far as it has: only one that cannot go on by itself has failed."""
    status = str(run["status"])
    data = {key: run.get(key) for key in ("status", "output", "error", "cost_usd")} | {"run_id": run["id"]}
    if status == "succeeded":
        return Answer(as_text(run.get("output")), data)
    if status not in ("failed", "cancelled", "paused"):
        return Answer(f"run {run['id']} is {status}; ask {GET_RUN} for its end", data)
    return Answer(_why(run, status), data, failed=True)


def tool_answer(value: Any) -> Answer:
    """A connected tool's result."""
    data: dict[str, Any] = cast("dict[str, Any]", value) if isinstance(value, dict) else {"result": value}
    return Answer(as_text(value), data)


def as_text(value: Any) -> str:
    """Text as it is, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _why(run: Mapping[str, Any], status: str) -> str:
    error: Mapping[str, Any] = run.get("error") or {}
    where = f" at step {error['step']}" if error.get("step") else ""
    reason = f": {error['message']}" if error.get("message") else ""
    return f"run {run['id']} {status}{where}{reason}"


def _moved(schema: Any, to: str) -> Any:
    """A schema that stands inside another one now: what it refers to in itself has moved along."""
    if isinstance(schema, list):
        return [_moved(item, to) for item in cast("list[Any]", schema)]
    if not isinstance(schema, Mapping):
        return schema
    told = cast("Mapping[str, Any]", schema)
    reference: Any = told.get("$ref")
    moved = {key: _moved(value, to) for key, value in told.items()}
    return moved | {"$ref": to + reference[1:]} if isinstance(reference, str) and reference.startswith("#") else moved


def _pointer(key: str) -> str:
    """A key within a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")
