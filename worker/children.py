"""A worker process as its supervisor sees it, and how patiently one that dies is started again."""

import asyncio
import os
import signal
import time
from typing import Protocol

_FREE_DEATHS = 3
_LONGEST_PAUSE_S = 5.0
_HEALTHY_AFTER_S = 10.0


class Child(Protocol):
    """A process that the supervisor started."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    async def wait(self) -> int | None:
        """Its exit code once it has ended, negative for a signal; None where nobody saw how."""
        ...

    def send_signal(self, signal: int, /) -> None:
        """Never hits another process. Raises: ProcessLookupError where it has ended, or nothing."""
        ...


class ForkedChild:
    """A child of the template. Its pidfd stands for this very process, also when its id belongs to another one."""

    def __init__(self, pid: int, handle: int) -> None:
        self.pid = pid
        self._handle = handle
        self._end: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int | None:
        """Its exit code; None where the template died before it could tell."""
        return await asyncio.shield(self._end)

    def send_signal(self, signal_number: int) -> None:
        """Raises: ProcessLookupError where it has ended."""
        if self._end.done():
            raise ProcessLookupError
        signal.pidfd_send_signal(self._handle, signal_number)

    def ended(self, code: int | None) -> None:
        """The template saw its end."""
        if not self._end.done():
            self._end.set_result(code)
            os.close(self._handle)

    def watch(self) -> None:
        """Nobody will tell of its end any more: look for it."""
        if not self._end.done():
            asyncio.get_running_loop().add_reader(self._handle, self._seen)

    def _seen(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        self.ended(None)


class RestartPause:
    """None for what lived well and for the first deaths; ever longer where one early death follows another."""

    def __init__(self) -> None:
        self._early = 0
        self._started = time.monotonic()

    def started(self) -> None:
        """It lives."""
        self._started = time.monotonic()

    def died_s(self) -> float:
        """It died: how long to wait before it is started again."""
        lived_s = time.monotonic() - self._started
        self._early = 0 if lived_s > _HEALTHY_AFTER_S else self._early + 1
        late = self._early - _FREE_DEATHS
        return 0.0 if late <= 0 else min(0.1 * 2.0 ** min(late - 1, 16), _LONGEST_PAUSE_S)
