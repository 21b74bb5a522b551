"""Sends one webhook: signed, to the address that was checked, following no redirect."""

import asyncio
from datetime import UTC, datetime

import httpx2
from standardwebhooks.webhooks import Webhook

from engine.store.database import Row
from worker.outbound import GuardedTarget, Refused, resolve
from worker.rules import Rules

TRY_LIMIT_S = 15.0


class WebhookSender:
    """Holds the connections of one process."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        # Not the environment's proxies: a webhook goes where its URL says and nowhere else.
        self._client = httpx2.AsyncClient(
            follow_redirects=False, trust_env=False, timeout=TRY_LIMIT_S, limits=httpx2.Limits()
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def send(self, delivery: Row) -> tuple[int | None, str | None]:
        """The receiver's status, or why there is none."""
        body: str = delivery["body"]
        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "user-agent": "aigateway",
            "webhook-id": delivery["id"],
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(self._rules.webhook_secret).sign(delivery["id"], at, body),
        }
        try:
            async with asyncio.timeout(TRY_LIMIT_S):
                # What belongs to no run goes where the operator's own configuration says.
                private = self._rules.allow_private_networks or delivery["run_id"] is None
                target = await resolve(delivery["url"], allow_private_networks=private)
                return await self._post(target, headers, body)
        except TimeoutError:
            return None, f"no answer within {TRY_LIMIT_S:g} s"
        except Refused as error:
            return None, error.message
        except httpx2.HTTPError as error:
            return None, f"{type(error).__name__}: {error}"[:500]

    async def _post(self, target: GuardedTarget, headers: dict[str, str], body: str) -> tuple[int, str | None]:
        async with self._client.stream(
            "POST",
            target.url,
            headers={**headers, "host": target.host},
            content=body.encode(),
            extensions={"sni_hostname": target.name},
        ) as response:
            return response.status_code, None if response.is_success else f"HTTP {response.status_code}"
