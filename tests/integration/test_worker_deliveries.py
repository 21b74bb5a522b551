"""Webhooks to a real receiver: signed, recorded, side by side, to nowhere that they should not go."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from engine_hand import ONE_STEP, Hand, opened
from services import wait_until
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from engine.clock import now_us
from engine.store.deliveries import deliveries_of_run, settle_delivery
from engine.views import deliveries_view
from worker.deliveries import Deliveries
from worker.rules import Rules

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """What came in, and what is answered: the codes of `answers` in turn, then 200. /slow waits for `go`."""

    url: str = ""
    answers: list[int] = field(default_factory=list[int])
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list[tuple[str, dict[str, str], bytes]])
    go: threading.Event = field(default_factory=threading.Event)

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            if self.path == "/slow":
                found.go.wait(20)
            if self.path == "/cut":
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(found.answers.pop(0) if found.answers else 200)
            self.send_header("location", f"{found.url}/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.go.set()
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def hand(sqlite_url: str) -> Iterator[Hand]:
    with opened(sqlite_url) as hand:
        hand.now = now_us()
        yield hand


def sending(
    hand: Hand, use: Callable[[Deliveries], Coroutine[Any, Any, None]], *, allow_private_networks: bool = True
) -> None:
    async def run() -> None:
        rules = Rules(webhook_secret=SECRET, allow_private_networks=allow_private_networks)
        deliveries = Deliveries(hand.database, "w1", rules, woken=asyncio.Event())
        async with asyncio.timeout(20):
            await use(deliveries)
        await deliveries.close()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, "it did not happen", 10)


async def send_all(deliveries: Deliveries) -> None:
    await deliveries.send_due()
    await asyncio.gather(*deliveries._sending)


def ended_run(hand: Hand, url: str) -> str:
    run_id = hand.start(ONE_STEP, webhook_url=url)
    hand.finish(run_id, "only", {"text": "Zoë", "odd": "\ud800"})
    return run_id


def log_of(hand: Hand, run_id: str) -> dict[str, Any]:
    [view] = hand.do(lambda tx: deliveries_view(tx, run_id))
    return view


def due_now(hand: Hand, delivery_id: str) -> None:
    hand.do(lambda tx: settle_delivery(tx, delivery_id, "pending", now_us(), None))


def test_many_deliveries_to_a_slow_receiver_do_not_hold_up_another(hand: Hand, receiver: Receiver) -> None:
    for _ in range(120):
        ended_run(hand, f"{receiver.url}/slow")
    ended_run(hand, f"{receiver.url.replace('127.0.0.1', 'localhost')}?run=last")

    async def use(deliveries: Deliveries) -> None:
        await deliveries.send_due()
        await until(lambda: any(path.endswith("?run=last") for path in receiver.paths()))
        await until(lambda: receiver.paths().count("/slow") == 10)
        receiver.go.set()
        running = asyncio.create_task(deliveries.run())
        await until(lambda: receiver.paths().count("/slow") == 120)
        await asyncio.gather(*deliveries._sending)
        running.cancel()

    sending(hand, use)
    assert len(receiver.got) == 121


def test_a_webhook_is_signed_as_the_standard_says_and_holds_the_run(hand: Hand, receiver: Receiver) -> None:
    run_id = ended_run(hand, f"{receiver.url}/hook?a=b")
    sending(hand, send_all)
    [(path, headers, body)] = receiver.got
    assert path == "/hook?a=b"
    assert headers["content-type"] == "application/json"
    assert headers["host"] == receiver.url.removeprefix("http://")
    sent = Webhook(SECRET).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, headers | {"webhook-id": "another"})
    assert sent == json.loads(body)
    assert (sent["type"], sent["data"]) == ("run.succeeded", hand.view(run_id))
    view = log_of(hand, run_id)
    assert (view["status"], view["id"], view["next_attempt_at"]) == ("delivered", headers["webhook-id"], None)
    assert [(each["status_code"], each["error"]) for each in view["attempts"]] == [(200, None)]


def test_each_try_has_the_same_id_and_is_recorded(hand: Hand, receiver: Receiver) -> None:
    receiver.answers = [500, 429]
    run_id = ended_run(hand, f"{receiver.url}/hook")

    async def three_times(deliveries: Deliveries) -> None:
        for number in range(3):
            await send_all(deliveries)
            await send_all(deliveries)  # it is not due again
            assert len(receiver.got) == number + 1
            if number < 2:
                due_now(hand, log_of(hand, run_id)["id"])

    sending(hand, three_times)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert len({body for _, _, body in receiver.got}) == 1
    for _, headers, body in receiver.got:
        Webhook(SECRET).verify(body, headers)
    view = log_of(hand, run_id)
    tries = [(each["status_code"], each["error"]) for each in view["attempts"]]
    assert tries == [(500, "HTTP 500"), (429, "HTTP 429"), (200, None)]
    assert view["status"] == "delivered"


def test_the_first_retry_comes_within_ten_seconds(hand: Hand, receiver: Receiver) -> None:
    receiver.answers = [503]
    run_id = ended_run(hand, f"{receiver.url}/hook")
    sending(hand, send_all)
    [row] = hand.do(lambda tx: deliveries_of_run(tx, run_id))
    assert 0 < row["next_attempt_us"] - now_us() <= 10_000_000


def test_a_redirect_is_not_followed(hand: Hand, receiver: Receiver) -> None:
    receiver.answers = [302]
    run_id = ended_run(hand, f"{receiver.url}/hook")
    sending(hand, send_all)
    assert receiver.paths() == ["/hook"]
    view = log_of(hand, run_id)
    assert (view["status"], view["attempts"][0]["error"]) == ("pending", "HTTP 302")


def test_a_slow_receiver_delays_nobody_else(hand: Hand, receiver: Receiver) -> None:
    slow = ended_run(hand, f"{receiver.url}/slow")
    fast = [ended_run(hand, f"{receiver.url}/fast") for _ in range(3)]

    async def run(deliveries: Deliveries) -> None:
        running = asyncio.create_task(deliveries.run())
        await until(lambda: receiver.paths().count("/fast") == 3 and "/slow" in receiver.paths())
        await until(lambda: {log_of(hand, run_id)["status"] for run_id in fast} == {"delivered"})
        assert log_of(hand, slow)["status"] == "pending"
        later = ended_run(hand, f"{receiver.url}/fast")
        deliveries._woken.set()
        await until(lambda: log_of(hand, later)["status"] == "delivered")
        receiver.go.set()
        await until(lambda: log_of(hand, slow)["status"] == "delivered")
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    sending(hand, run)
    assert receiver.paths().count("/slow") == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"]
)
def test_private_networks_are_refused_unless_allowed(hand: Hand, receiver: Receiver, host: str) -> None:
    port = receiver.url.rpartition(":")[2]
    run_id = ended_run(hand, f"http://{host}:{port}/hook")
    sending(hand, send_all, allow_private_networks=False)
    assert receiver.got == []
    view = log_of(hand, run_id)
    assert view["attempts"][0]["status_code"] is None
    assert "private network" in view["attempts"][0]["error"]


def test_a_name_is_checked_by_what_it_resolves_to(hand: Hand, receiver: Receiver) -> None:
    port = receiver.url.rpartition(":")[2]
    run_id = ended_run(hand, f"http://{socket.gethostname()}:{port}/hook")
    sending(hand, send_all, allow_private_networks=False)
    assert receiver.got == []
    assert socket.gethostname() in log_of(hand, run_id)["attempts"][0]["error"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:1/hook", "ConnectError"),
        ("{receiver}/cut", "Error"),
        ("http://a..b/hook", "cannot be resolved"),
        (f"http://{'x' * 70}.example/hook", "cannot be resolved"),
        ("http://nowhere.example/hook", "cannot be resolved"),
        ("ftp://127.0.0.1/hook", "must be an http or https URL"),
        ("http://127.0.0.1:99999/hook", "Port out of range"),
        ("https://127.0.0.1:1/hook", "ConnectError"),
        ("http://127.0.0.1:1/a b\u00e9?q=\u2028", "Error"),
    ],
)
def test_whatever_goes_wrong_is_recorded_and_tried_again(hand: Hand, receiver: Receiver, url: str, told: str) -> None:
    run_id = ended_run(hand, url.format(receiver=receiver.url))
    sending(hand, send_all)
    view = log_of(hand, run_id)
    assert view["status"] == "pending"
    [tried] = view["attempts"]
    assert tried["status_code"] is None
    assert told in tried["error"]


def test_two_processes_send_a_webhook_once(hand: Hand, receiver: Receiver) -> None:
    for _ in range(5):
        ended_run(hand, f"{receiver.url}/hook")
    with opened(hand.database.url) as other:

        async def both(deliveries: Deliveries) -> None:
            second = Deliveries(other.database, "w2", Rules(SECRET, allow_private_networks=True), woken=asyncio.Event())
            await asyncio.gather(send_all(deliveries), send_all(second))
            await second.close()

        sending(hand, both)
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert len(ids) == len(set(ids)) == 5
