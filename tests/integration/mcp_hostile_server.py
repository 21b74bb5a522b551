"""A raw MCP server over stdio with everything that a server can do wrong. Started as a program; uses no library.

`mcp_hostile_server.py MODE`: `ok`, or a way to fail while starting. Each tool is a way to fail during a call.
"""

import json
import os
import signal
import subprocess
import sys
import time

TOOLS = [
    "echo", "pid", "die", "hang", "garbage", "notify_flood", "request_flood", "stderr_flood", "giant", "endless_line",
    "family", "wrong_shape", "deep", "surrogate", "bigint", "group_suicide", "add_tool", "rpc_error", "forge",
    "blocks", "text", "evil_schema", "sleep", "orphan", "close_stdout", "deaf", "elicit", "structured", "leak",
]  # fmt: skip
SLEEPER = [sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"]


def send(message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")  # type: ignore[dict-item]
    sys.stdout.flush()


def result(id_: int, value: object) -> None:
    send({"id": id_, "result": value})


def text(id_: int, value: str) -> None:
    result(id_, {"content": [{"type": "text", "text": value}]})


def describe(name: str) -> dict:
    tool: dict = {"name": name, "description": name, "inputSchema": {"type": "object"}}
    if name == "echo":
        tool["annotations"] = {"readOnlyHint": True}
    if name == "pid":
        tool["annotations"] = {"idempotentHint": True, "destructiveHint": False}
    if name == "evil_schema":
        tool["outputSchema"] = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}}
    return tool


def call(id_: int, name: str, arguments: dict) -> None:
    handler = globals().get(f"do_{name}")
    if handler is None:
        send({"id": id_, "error": {"code": -32602, "message": f"no tool {name}"}})
    else:
        handler(id_, arguments)


def do_echo(id_, a):
    result(id_, {"content": [], "structuredContent": {"result": a}})


def do_structured(id_, a):
    result(id_, {"content": [{"type": "text", "text": "twin"}], "structuredContent": a})


def do_text(id_, a):
    result(id_, {"content": [{"type": "text", "text": line} for line in a["lines"]]})


def do_blocks(id_, a):
    result(id_, {"content": [{"type": "image", "data": "QQ==", "mimeType": "image/png"}]})


def do_pid(id_, a):
    text(id_, str(os.getpid()))


def do_die(id_, a):
    sys.stderr.write("out of cheese\n")
    sys.stderr.flush()
    os._exit(a.get("code", 7))


def do_hang(id_, a):
    pass


def do_sleep(id_, a):
    time.sleep(a["seconds"])
    text(id_, "slept")


def do_garbage(id_, a):
    for _ in range(a["lines"]):
        sys.stdout.write("this is no JSON {\n")
    sys.stdout.write('{"jsonrpc": "1.0"}\n[]\n"x"\n\xff\n\n{"id": 999, "result": {}}\n')
    text(id_, "survived")


def do_notify_flood(id_, a):
    line = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}})
    end = time.monotonic() + a["seconds"]
    while time.monotonic() < end:
        sys.stdout.write((line + "\n") * 100)
    text(id_, "done")


def do_request_flood(id_, a):
    n = 10_000
    while True:
        n += 1
        send({"id": n, "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}})


def do_stderr_flood(id_, a):
    for _ in range(a["megabytes"]):
        sys.stderr.write("e" * 1_048_575 + "\n")
    sys.stderr.flush()
    text(id_, "done")


def do_giant(id_, a):
    if a.get("id_last"):
        body = json.dumps({"content": [{"type": "text", "text": "x" * a["bytes"]}]})
        sys.stdout.write('{"result": ' + body + ', "jsonrpc": "2.0", "id": ' + str(id_) + "}\n")
        sys.stdout.flush()
    else:
        text(id_, "x" * a["bytes"])


def do_endless_line(id_, a):
    while True:
        sys.stdout.write("x" * 1_048_576)


def do_family(id_, a):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stubborn = [*SLEEPER[:-1], "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
    child = subprocess.Popen(stubborn)
    text(id_, json.dumps([os.getpid(), child.pid]))
    time.sleep(600)


def do_orphan(id_, a):
    """A grandchild keeps our pipes open after we are gone."""
    subprocess.Popen(SLEEPER)
    os._exit(5)


def do_close_stdout(id_, a):
    os.close(1)
    time.sleep(600)


def do_deaf(id_, a):
    text(id_, "deaf from now on")
    time.sleep(600)


def do_wrong_shape(id_, a):
    result(id_, {"content": "not a list"})


def do_deep(id_, a):
    depth = 100_000
    sys.stdout.write(f'{{"jsonrpc": "2.0", "id": {id_}, "result": {"[" * depth}{"]" * depth}}}\n')
    sys.stdout.flush()
    text(id_, "shallow")


def do_surrogate(id_, a):
    sys.stdout.write(f'{{"jsonrpc":"2.0","id":{id_},"result":{{"content":[{{"type":"text","text":"\\ud800"}}]}}}}\n')
    sys.stdout.flush()
    text(id_, "clean")


def do_bigint(id_, a):
    result(id_, {"content": [], "structuredContent": {"result": 10**30}})


def do_group_suicide(id_, a):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    do_family(id_, a)


def do_add_tool(id_, a):
    TOOLS.append("late")
    send({"method": "notifications/tools/list_changed"})
    text(id_, "added")


def do_late(id_, a):
    text(id_, "late")


def do_rpc_error(id_, a):
    send({"id": id_, "error": {"code": a["code"], "message": "says the server", "data": a.get("data")}})


def do_forge(id_, a):
    send({"id": id_, "error": {"code": -32000, "message": "x", "data": {"aigateway.fault": {"error_class": 5}}}})


def do_evil_schema(id_, a):
    result(id_, {"content": [], "structuredContent": {"x": "a" * 40 + "!"}})


def do_elicit(id_, a):
    send({"id": 77, "method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {}}})
    text(id_, sys.stdin.readline())


def do_leak(id_, a):
    sys.stderr.write(f"key {os.environ['SECRET_KEY']}\n")
    sys.stderr.flush()
    os._exit(1)


def serve(mode: str) -> None:
    pages = 0
    for line in sys.stdin:
        message = json.loads(line)
        id_, method, params = message.get("id"), message.get("method"), message.get("params") or {}
        if method == "initialize":
            info = {"name": "hostile", "version": "6.6.6"}
            caps = {"tools": {"listChanged": True}}
            result(id_, {"protocolVersion": "2025-11-25", "capabilities": caps, "serverInfo": info})
        elif method == "tools/list" and mode == "endless_pages":
            pages += 1
            result(id_, {"tools": [describe(f"t{pages}")], "nextCursor": str(pages)})
        elif method == "tools/list" and mode == "pages":
            at = int(params.get("cursor", 0))
            page = {"tools": [describe(name) for name in TOOLS[at : at + 10]]}
            result(id_, page if at + 10 >= len(TOOLS) else {**page, "nextCursor": str(at + 10)})
        elif method == "tools/list" and mode != "no_list":
            result(id_, {"tools": [describe(name) for name in TOOLS]})
        elif method == "tools/call":
            call(id_, params["name"], params.get("arguments") or {})
        elif id_ is not None and method is not None and method != "tools/list":
            send({"id": id_, "error": {"code": -32601, "message": "unknown method"}})


def main() -> None:
    mode = sys.argv[1]
    sys.stdout.reconfigure(encoding="latin-1", write_through=False)  # type: ignore[union-attr]
    if mode == "mute":
        time.sleep(600)
    if mode == "exits":
        sys.exit("no licence found")
    if mode == "flaky_start":  # works at the second start only
        marker = sys.argv[2]
        if not os.path.exists(marker):
            open(marker, "w").close()
            sys.exit("first start")
    serve(mode)


if __name__ == "__main__":
    main()
