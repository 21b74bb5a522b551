"""Reads the configuration again while a process runs: on SIGHUP, on `POST /v1/config/reload`, and when another process was asked to.

A configuration with any mistake is refused whole and the old one stays. Each process reads its own file. What calls out at the
time goes on with what it has; how a process goes by new settings is its own part, handed in as `take_up`.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from aigateway.config_changes import changes_between, merged
from aigateway.config_keys import Settings
from engine.clock import new_id
from engine.errors import AIGatewayError, RetryableError, UserError
from engine.store.database import Database
from engine.store.settings import get_value, put_value

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.5
_GENERATION = "config_generation"
"""The setting that every POST gives a new value: who sees another one than it knows reads its file."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """`changed`: by section, the names added, changed and removed; `needs_restart`: changed keys that are not in force;
    `file_errors`: files of the workflows folder that were not taken up, with the reason.
    """

    changed: Mapping[str, Mapping[str, Sequence[str]]]
    needs_restart: Sequence[str]
    file_errors: Mapping[str, str]


class Reloader:
    """One process's settings in force."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        take_up: Callable[[Settings], Awaitable[Mapping[str, UserError]]],
    ) -> None:
        """`read` gives the settings as they are written down now; `take_up` goes by them and tells which workflow files it could not."""
        self._in_force = settings
        self._read = read
        self._take_up = take_up
        self._one_at_a_time = asyncio.Lock()
        self._generation: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def reload(self) -> Reloaded:
        """Read, check and take up. Raises: UserError(invalid_config) with every mistake; nothing has changed then."""
        async with self._one_at_a_time:
            new = await asyncio.to_thread(self._read)
            changes = changes_between(self._in_force, new)
            errors = await self._take_up(merged(self._in_force, new))
            self._in_force = merged(self._in_force, new)
        told = Reloaded(changes.live, changes.needs_restart, {name: error.message for name, error in errors.items()})
        log.info(
            "configuration taken up",
            action="reload",
            changed=told.changed,
            needs_restart=told.needs_restart,
            workflow_errors=list(told.file_errors.values()),
        )
        return told

    async def reload_everywhere(self, database: Database) -> Reloaded:
        """`reload`, and tell all other processes that share the database to do the same. Raises: UserError, RetryableError."""
        told = await self.reload()
        generation = new_id()
        await database.write(lambda tx: put_value(tx, _GENERATION, generation))
        self._generation = generation
        return told

    async def watch(self, database: Database) -> None:
        """Follow what other processes were asked, until cancelled. The first look may find what was asked while this one started."""
        while True:
            try:
                generation = await database.read(lambda tx: get_value(tx, _GENERATION))
            except RetryableError:
                generation = self._generation  # the database is away, and others say so
            if generation != self._generation:
                self._generation = generation
                await self._reload_or_log()
            await asyncio.sleep(LOOK_EVERY_S)

    def listen(self) -> None:
        """Reload on SIGHUP from now on."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.start)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # a supervisor starts children with it held back

    def start(self) -> None:
        """Reload without waiting for it; what comes of it is logged."""
        task = asyncio.get_running_loop().create_task(self._reload_or_log())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload_or_log(self) -> None:
        try:
            await self.reload()
        except AIGatewayError as error:
            mistakes = [mistake.message for mistake in error.details] or [error.message]
            log.error("configuration refused, the old one stays", action="reload", mistakes=mistakes)
        except Exception:
            log.error("configuration not taken up", action="reload", exc_info=True)


class HangUp:
    """What SIGHUP means to a process that people start: to reload and tell its children, or that its terminal was closed."""

    def __init__(self, *, reload: Callable[[], None], stop: Callable[[], None]) -> None:
        self._terminals = [number for number in range(3) if os.isatty(number)]
        self._reload = reload
        self._stop = stop

    def listen(self) -> None:
        """From now on, on the running loop, whatever the process that started this one held back."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hear)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _hear(self) -> None:
        open_still = all(os.isatty(number) for number in self._terminals)
        (self._reload if open_still else self._stop)()


def as_json(told: Reloaded) -> dict[str, Any]:
    """The answer of `POST /v1/config/reload`."""
    return {
        "object": "config.reload",
        "changed": told.changed,
        "needs_restart": list(told.needs_restart),
        "workflow_errors": [{"file": name, "message": message} for name, message in told.file_errors.items()],
    }
