"""Who rests: the upstream models that are cooling down after failures, shared by all processes through the database.

A row is a candidate (provider and model) that rests, and nothing else has one: a healthy candidate costs no row and no write.
What makes one rest, and for how long, is `providers.health`'s to say. Times are wall-clock time, so hosts whose clocks differ by
a second see a rest end a second apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.clock import iso
from engine.store.database import Database, Tx
from engine.store.provider_health import delete_rest, delete_rests, free_probe, list_rests, take_probe, upsert_rest


@dataclass(frozen=True, slots=True)
class Rest:
    """A candidate that rests until `until_us`, then waits for its probe. `trips` counts rests without a success between them.

    `probe_until_us` is until when one caller may find out whether it works again; None while nobody tries.
    """

    provider: str
    model: str
    since_us: int
    until_us: int
    trips: int
    error_class: str
    error: str
    probe_until_us: int | None = None


class HealthBoard:
    """Where the processes of one installation tell one another who rests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> Sequence[Rest]:
        """All that rest, and those that wait for their probe."""
        return await self._database.read(rests)

    async def rest(self, rest: Rest) -> None:
        """This candidate rests from now on; what was known of it is replaced."""
        await self._database.write(lambda tx: upsert_rest(tx, _row(rest)))

    async def heal(self, provider: str, model: str) -> None:
        """This candidate works again."""
        await self._database.write(lambda tx: delete_rest(tx, provider, model))

    async def take_probe(self, provider: str, model: str, now: int, until_us: int) -> bool:
        """Whether the caller is the one that tries it now; nobody else is until then, or until it tells how it went."""
        return await self._database.write(lambda tx: take_probe(tx, (provider, model), now, until_us))

    async def free_probe(self, provider: str, model: str, until_us: int) -> None:
        """The caller gave up before it knew: another may try."""
        await self._database.write(lambda tx: free_probe(tx, (provider, model), until_us))

    async def forget(self, provider: str) -> None:
        """Nothing is known of the models of this provider any more."""
        await self._database.write(lambda tx: delete_rests(tx, provider))


def rests(tx: Tx) -> list[Rest]:
    """All that rest, and those that wait for their probe, in a stable order."""
    return [Rest(**row) for row in list_rests(tx)]


def health_view(tx: Tx, now: int) -> list[dict[str, Any]]:
    """The same as users see it: `state` is cooling (until a time), waiting (for its probe) or probing."""
    return [_view(rest, now) for rest in rests(tx)]


def state_of(rest: Rest, now: int) -> str:
    """Where in its rest a candidate is."""
    if now < rest.until_us:
        return "cooling"
    return "probing" if rest.probe_until_us is not None and now < rest.probe_until_us else "waiting"


def _view(rest: Rest, now: int) -> dict[str, Any]:
    return {
        "provider": rest.provider,
        "model": rest.model,
        "state": state_of(rest, now),
        "since": iso(rest.since_us),
        "until": iso(rest.until_us),
        "rests": rest.trips,
        "error_class": rest.error_class,
        "error": rest.error,
    }


def _row(rest: Rest) -> Mapping[str, Any]:
    return {name: getattr(rest, name) for name in Rest.__dataclass_fields__}
