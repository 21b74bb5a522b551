"""The `http` step reaches no private network unless it may, and never keeps more of an answer than it should."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from engine.definition import Definition, Step
from engine.errors import UserError
from engine.ledger import CallKind, CallScope, Intent, Settlement
from engine.ports import Failed, Job, Outcome, Succeeded
from engine.states import ErrorClass
from worker.executors.http import MAX_ANSWER_BYTES, HttpExecutor
from worker.rules import Rules


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, size = (int(part) for part in self.path.split("/")[1:3])
        self.send_response(status)
        self.send_header("retry-after", "7")
        self.send_header("location", "/200/1")
        self.send_header("content-type", "application/json" if self.path.endswith("/levels") else "text/plain")
        self.end_headers()
        self.wfile.write(b"[" * size + b"]" * size if self.path.endswith("/levels") else b"x" * size)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class Kept:
    """engine.ports.StepLedger in memory."""

    def __init__(self) -> None:
        self.rows: list[Intent | Settlement] = []

    async def open(self, intent: Intent) -> None:
        self.rows.append(intent)

    async def settle(self, settlement: Settlement) -> None:
        self.rows.append(settlement)

    async def remaining_picousd(self) -> int | None:
        return None


def execute(fields: dict[str, Any], *, private: bool = True, book: Kept | None = None) -> Outcome:
    step = Step(id="get", path="get", type="http", needs=(), fields=fields)
    job = Job("run", "row", "get", 1, Definition("w", (step,)), step, {"input": {}}, CallScope("r"), book or Kept())

    async def go() -> Outcome:
        executor = HttpExecutor(Rules(allow_private_networks=private))
        try:
            return await executor.execute(job)
        finally:
            await executor.close()

    return asyncio.run(go())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "[::1]", "169.254.169.254"])
def test_a_private_network_is_refused(host: str) -> None:
    outcome = execute({"url": f"http://{host}/200/1"}, private=False)
    assert isinstance(outcome, Failed) and outcome.final
    assert "private network" in outcome.message and "webhook_url" not in outcome.message


@pytest.mark.parametrize(
    ("status", "method", "kind", "final"),
    [
        (429, "POST", ErrorClass.RATE_LIMIT, False), (503, "POST", ErrorClass.OVERLOADED, False), (500, "GET", ErrorClass.SERVER_ERROR, False),
        (500, "POST", ErrorClass.SERVER_ERROR, True), (404, "GET", ErrorClass.INVALID_REQUEST, True), (401, "GET", ErrorClass.AUTH, True),
        (302, "GET", ErrorClass.INVALID_REQUEST, True),
    ],
)  # fmt: skip
def test_a_status_is_classed(url: str, status: int, method: str, kind: ErrorClass, final: bool) -> None:
    outcome = execute({"url": f"{url}/{status}/1", "method": method})
    assert isinstance(outcome, Failed)
    assert (outcome.error_class, outcome.final, outcome.retry_after_s) == (kind, final, 7)


def test_an_answer_has_an_end(url: str) -> None:
    kept = execute({"url": f"{url}/200/{MAX_ANSWER_BYTES}"})
    assert isinstance(kept, Succeeded) and len(kept.output["body"]) == MAX_ANSWER_BYTES
    with pytest.raises(UserError, match="larger than"):
        execute({"url": f"{url}/200/{MAX_ANSWER_BYTES + 1}"})


@pytest.mark.parametrize("levels", [5_000, 100_000])
def test_json_too_deep_to_be_read_is_no_text(url: str, levels: int) -> None:
    with pytest.raises(UserError, match="the answer is nested too deeply: 200 levels are the limit"):
        execute({"url": f"{url}/200/{levels}/levels"})


@pytest.mark.parametrize("headers", [{"a": "b\r\nc: d"}, {"a\n": "b"}, {"a": [1]}])
def test_a_header_that_is_none_is_refused(url: str, headers: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="header"):
        execute({"url": f"{url}/200/1", "headers": headers})


@pytest.mark.parametrize(
    ("path", "error_class"),
    [("200/1", None), ("500/1", "server_error"), (f"200/{MAX_ANSWER_BYTES + 1}", "invalid_request")],
)
def test_every_request_that_is_sent_is_booked(url: str, path: str, error_class: str | None) -> None:
    book = Kept()
    try:
        execute({"url": f"{url}/{path}"}, book=book)
    except UserError:
        assert error_class == "invalid_request"
    intent, settled = book.rows
    assert isinstance(intent, Intent) and isinstance(settled, Settlement)
    assert (intent.kind, intent.model) == (CallKind.HTTP, "GET 127.0.0.1")
    assert (settled.id, settled.cost_picousd, settled.error_class) == (intent.id, 0, error_class)


def test_what_is_refused_before_it_is_sent_is_not_booked(url: str) -> None:
    book = Kept()
    execute({"url": f"{url}/200/1"}, private=False, book=book)
    assert book.rows == []
