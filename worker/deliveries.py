"""Sends webhooks as Standard Webhooks say: signed, the same webhook-id on every try, each try recorded.

Any worker may send any delivery. What a process was sending when it ended is due at once when it is buried, and should nobody do
that, behind the try's time limit. A slow receiver delays nobody else: deliveries are sent side by side, and to one receiver only so many at once.
"""

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from engine.alerts import UNKNOWN_PRICE, anything_to_tell, tell_alerts
from engine.clock import now_us
from engine.errors import RetryableError
from engine.store.database import Database, Row
from engine.store.deliveries import MOST_BUSY, due_deliveries, take_delivery
from engine.tracing import Tracer
from engine.webhook_outbox import record_delivery
from worker.delivery_spans import begin_span, end_span
from worker.patience import write_patiently
from worker.rules import Rules

if TYPE_CHECKING:
    from worker.webhook_sender import WebhookSender

log = structlog.get_logger(__name__)

_TAKEN_FOR_US = 30_000_000
_TO_ONE = 10
_AT_ONCE = _TO_ONE * MOST_BUSY
_RECEIVER = re.compile(r"[^/]*//[^/?#]*")
_LOOK_EVERY_S = 1.0


class Deliveries:
    """The sender of one process."""

    def __init__(
        self, database: Database, worker_id: str, rules: Rules, *, woken: asyncio.Event, tracer: Tracer | None = None
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._rules = rules
        self._woken = woken
        self._tracer = tracer
        self._sending: set[asyncio.Task[None]] = set()
        self._under_way: Counter[str] = Counter()  # by receiver
        self._sender: WebhookSender | None = None

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._woken.clear()
            try:
                await self.tell_alerts()
                await self.send_due()
            except RetryableError as error:
                log.warning("deliveries not read", action="deliver", error=error.message)
            except Exception:
                log.error("deliveries not sent", action="deliver", exc_info=True)
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def tell_alerts(self) -> None:
        """Log what there is to tell, and queue it for the operator where there is an address."""
        if not await self._database.read(anything_to_tell):
            return
        for facts in await self._database.write(lambda tx: tell_alerts(tx, self._rules.alert_url, now_us())):
            # nested: what an alert says of itself has names that a log line has for other things
            log.warning(
                "unknown price" if facts["alert"] == UNKNOWN_PRICE else "budget alert", action="alert", about=facts
            )

    async def send_due(self) -> None:
        """Start sending what is due."""
        progress = True
        while progress and (room := _AT_ONCE - len(self._sending)) > 0:
            busy = self._busy()
            found = await self._database.read(
                lambda tx, most=room, left_out=busy: due_deliveries(tx, now_us(), most, left_out)
            )
            for delivery in found:
                await self._begin(delivery)
            progress = len(found) == room and self._busy() != busy  # else all that is due was looked at

    def _busy(self) -> list[str]:
        return sorted(receiver for receiver, number in self._under_way.items() if number >= _TO_ONE)

    async def _begin(self, delivery: Row) -> None:
        """Take a delivery and start sending it, where its receiver has not enough already."""
        receiver = _receiver(delivery["url"])
        if self._under_way[receiver] >= _TO_ONE:
            return
        until = now_us() + _TAKEN_FOR_US
        if await write_patiently(self._database, lambda tx: take_delivery(tx, delivery, self._worker_id, until)):
            self._under_way[receiver] += 1
            task = asyncio.create_task(self._send(delivery))
            self._sending.add(task)
            task.add_done_callback(lambda done: self._ended(done, receiver))

    def _ended(self, task: asyncio.Task[None], receiver: str) -> None:
        self._sending.discard(task)
        self._under_way[receiver] -= 1
        if not self._under_way[receiver]:
            del self._under_way[receiver]
        self._woken.set()  # its receiver has room, and the run's next delivery may go now

    async def close(self) -> None:
        """Stop sending; what was not recorded is sent again by another process, at once when this one's end is told."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._sender is not None:
            await self._sender.close()

    async def _send(self, delivery: Row) -> None:
        if self._sender is None:
            from worker.webhook_sender import WebhookSender  # noqa: PLC0415 - httpx2: most processes send nothing

            self._sender = WebhookSender(self._rules)
        span = None if self._tracer is None else await begin_span(self._tracer, self._database, delivery)
        status_code, error = await self._sender.send(delivery)
        at = now_us()
        if span is not None:
            end_span(span, status_code)
        status = await write_patiently(self._database, lambda tx: record_delivery(tx, delivery, status_code, error, at))
        log.info("webhook tried", action="deliver", delivery=delivery["id"], status=status, status_code=status_code)


def _receiver(url: str) -> str:
    """Scheme, host and port as they are written there."""
    found = _RECEIVER.match(url)
    return url if found is None else found[0]
