"""Sends webhooks as Standard Webhooks say: signed, the same webhook-id on every try, each try recorded.

Any worker may send any delivery; taking one moves its next try behind this one's time limit, so that a process that dies with it is
followed by another. A slow receiver delays nobody: deliveries are sent side by side.
"""

import asyncio
from datetime import UTC, datetime

import httpx2
import structlog
from standardwebhooks.webhooks import Webhook

from engine.clock import now_us
from engine.errors import RetryableError
from engine.store.database import Database, Row
from engine.store.deliveries import due_deliveries, take_delivery
from engine.webhook_outbox import record_delivery
from worker.outbound import GuardedTarget, Refused, resolve

log = structlog.get_logger(__name__)

TRY_LIMIT_S = 15.0
_TAKEN_FOR_US = 30_000_000
_AT_ONCE = 50
_LOOK_EVERY_S = 1.0


class Deliveries:
    """The sender of one process."""

    def __init__(self, database: Database, secret: str, *, allow_private_networks: bool, woken: asyncio.Event) -> None:
        self._database = database
        self._webhook = Webhook(secret)
        self._allow_private_networks = allow_private_networks
        self._woken = woken
        self._sending: set[asyncio.Task[None]] = set()
        self._client: httpx2.AsyncClient | None = None

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            try:
                await self.send_due()
            except RetryableError as error:
                log.warning("deliveries not read", action="deliver", error=error.message)
            self._woken.clear()
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def send_due(self) -> None:
        """Start sending what is due."""
        room = _AT_ONCE - len(self._sending)
        if room <= 0:
            return
        for delivery in await self._database.read(lambda tx: due_deliveries(tx, now_us(), room)):
            until = now_us() + _TAKEN_FOR_US
            if await self._database.write(lambda tx, row=delivery, until=until: take_delivery(tx, row, until)):
                task = asyncio.create_task(self._send(delivery))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Stop sending; what was not recorded is sent again by another process."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _send(self, delivery: Row) -> None:
        status_code, error = await self._try(delivery)
        status = await self._database.write(lambda tx: record_delivery(tx, delivery, status_code, error, now_us()))
        log.info("webhook tried", action="deliver", delivery=delivery["id"], status=status, status_code=status_code)
        self._woken.set()  # the run's next delivery may go now

    async def _try(self, delivery: Row) -> tuple[int | None, str | None]:
        """The receiver's status, or why there is none."""
        body: str = delivery["body"]
        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "user-agent": "aigateway",
            "webhook-id": delivery["id"],
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._webhook.sign(delivery["id"], at, body),
        }
        try:
            async with asyncio.timeout(TRY_LIMIT_S):
                target = await resolve(delivery["url"], allow_private_networks=self._allow_private_networks)
                return await self._post(target, headers, body)
        except TimeoutError:
            return None, f"no answer within {TRY_LIMIT_S:g} s"
        except Refused as error:
            return None, error.message
        except httpx2.HTTPError as error:
            return None, f"{type(error).__name__}: {error}"[:500]

    async def _post(self, target: GuardedTarget, headers: dict[str, str], body: str) -> tuple[int, str | None]:
        if self._client is None:
            # Not the environment's proxies: a webhook goes where its URL says and nowhere else.
            self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=TRY_LIMIT_S)
        async with self._client.stream(
            "POST",
            target.url,
            headers={**headers, "host": target.host},
            content=body.encode(),
            extensions={"sni_hostname": target.name},
        ) as response:
            return response.status_code, None if response.is_success else f"HTTP {response.status_code}"
