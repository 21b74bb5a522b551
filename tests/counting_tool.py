"""A raw MCP server over stdio with one tool, `note`, which may not be repeated: `counting_tool.py FILE NUMBER...`.

Each call adds a line to the file; the calls of those numbers, counted from 1 over all processes, are never answered.
"""

import json
import sys
from pathlib import Path
from typing import Any

TOOL = {"name": "note", "description": "Notes a text.", "inputSchema": {"type": "object", "required": ["text"]}}


def answer(request: dict[str, Any]) -> dict[str, Any] | None:
    """What is answered; None: nothing."""
    match request["method"]:
        case "initialize":
            version = request["params"]["protocolVersion"]
            who = {"name": "notes", "version": "1"}
            return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": who}}
        case "tools/list":
            return {"result": {"tools": [TOOL]}}
        case "tools/call":
            return noted(request["params"]["arguments"]["text"])
        case _:
            return {"error": {"code": -32601, "message": "method not found"}}


def noted(text: str) -> dict[str, Any] | None:
    path = Path(sys.argv[1])
    with path.open("a") as file:
        file.write(text + "\n")
    number = len(path.read_text().splitlines())
    if str(number) in sys.argv[2:]:
        return None
    return {"result": {"content": [{"type": "text", "text": f"noted {number}"}]}}


for line in sys.stdin:
    message = json.loads(line)
    found = answer(message) if "id" in message else None
    if found is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **found}), flush=True)
