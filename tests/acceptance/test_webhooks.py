"""Webhooks from outside: signed, retried under one id, logged, redelivered."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

from gateway import Gateway, gateway
from receiver import Receiver
from services import wait_until
from standardwebhooks.webhooks import Webhook

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="
CONFIG: dict[str, Any] = {"webhooks": {"secret": SECRET, "allow_private_networks": True}}
ECHO = {"name": "one", "steps": [{"id": "say", "type": "llm", "model": "simulated/echo", "prompt": "hi"}]}


def documented_check() -> Any:
    """The receiver of docs/webhooks.md."""
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    found: dict[str, Any] = {}
    exec(re.findall(r"<!-- tested: verify -->\n```python\n(.*?)```", text, re.DOTALL)[0], found)
    return found["received"]


def deliveries(up: Gateway, run_id: str) -> list[dict[str, Any]]:
    return up.http.get(f"/v1/runs/{run_id}/webhooks").json()["data"]


def test_signed_retried_logged_and_redelivered(tmp_path: Path) -> None:
    with gateway(tmp_path / "home", CONFIG) as up, Receiver(500, 204).listening() as receiver:
        up.serve()
        run_id = up.submit(ECHO, {}, webhook_url=receiver.url)
        wait_until(lambda: len(receiver.got) == 2, "the webhook came twice", 20)
        wait_until(lambda: deliveries(up, run_id)[0]["status"] == "delivered", "it was recorded", 10)
        (delivery,) = deliveries(up, run_id)
        assert [attempt["status_code"] for attempt in delivery["attempts"]] == [500, 204]
        ids = {headers["webhook-id"] for headers, _ in receiver.got}
        assert ids == {delivery["id"]}
        for headers, body in receiver.got:
            Webhook(SECRET).verify(body, headers)
            assert documented_check()(SECRET, headers, body)["type"] == "run.succeeded"
            assert documented_check()(SECRET, headers, body + b" ") is None
        told = json.loads(receiver.got[1][1])
        assert told["type"] == "run.succeeded" and told["data"]["id"] == run_id
        assert told["data"]["output"] == "hi" and told["data"]["status"] == "succeeded"
        again = up.http.post(f"/v1/webhooks/{delivery['id']}/redeliver")
        assert again.status_code == 202
        wait_until(lambda: len(receiver.got) == 3, "it came once more", 10)
        assert receiver.got[2][0]["webhook-id"] == delivery["id"]
        check_takeover(up, receiver)


def check_takeover(up: Gateway, receiver: Receiver) -> None:
    """What a killed worker was sending is sent by the next at once, and the receiver is not held to have failed."""
    receiver.open.clear()
    run_id = up.submit(ECHO, {}, webhook_url=receiver.url)
    wait_until(lambda: len(receiver.got) == 4, "it is being sent", 10)
    (worker,) = up.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(receiver.got) == 5, "another worker sends it", 5)
    receiver.open.set()
    wait_until(lambda: deliveries(up, run_id)[0]["status"] == "delivered", "it was recorded", 10)
    (delivery,) = deliveries(up, run_id)
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [204]
    assert receiver.got[3][0]["webhook-id"] == receiver.got[4][0]["webhook-id"] == delivery["id"]


def test_private_receivers_are_refused_by_default(tmp_path: Path) -> None:
    with gateway(tmp_path / "home", {}) as up:
        up.serve()
        body = {"workflow": ECHO, "input": {}, "webhook_url": "http://localhost:9/"}
        answer = up.http.post("/v1/runs", json=body)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "webhook_url"
