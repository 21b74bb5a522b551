"""The supervisor's end of one template: orders go out, and who was forked and who ended comes in, on the running loop."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from worker.children import ForkedChild
from worker.template import LONGEST_PACKET

_LOAD_LIMIT_S = 60.0
_FORK_LIMIT_S = 10.0


class NotForked(Exception):
    """The template could not do it, or is gone."""


class TemplateLink:
    """`reap` waits for the process `pid`, a child of this one. `listen` comes first."""

    def __init__(self, control: socket.socket, pid: int, reap: Callable[[], object]) -> None:
        control.setblocking(False)
        self.pid = pid
        self._control = control
        self._reap = reap
        self._ready: asyncio.Future[None]
        self._number = 0
        self._expected: dict[int, asyncio.Future[ForkedChild]] = {}
        self._children: dict[int, ForkedChild] = {}
        self._gone: asyncio.Future[None]

    def listen(self) -> asyncio.Future[None]:
        """Begin on the running loop. What is returned is done when the template is gone."""
        loop = asyncio.get_running_loop()
        self._ready, self._gone = loop.create_future(), loop.create_future()
        loop.add_reader(self._control, self._read)
        return self._gone

    async def loaded(self) -> None:
        """Return when it can fork. Raises: NotForked."""
        waiting = (self._ready, self._gone)
        await asyncio.wait(waiting, timeout=_LOAD_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done() or not self._ready.done():
            raise NotForked("the template ended" if self._gone.done() else "the template does not get ready")

    async def fork(self, arguments: Sequence[str]) -> ForkedChild:
        """A new process. Raises: NotForked."""
        await self.loaded()
        self._number += 1
        number = self._number
        child = self._expected[number] = asyncio.get_running_loop().create_future()
        try:
            self._control.send(json.dumps({"number": number, "arguments": list(arguments)}).encode())
            async with asyncio.timeout(_FORK_LIMIT_S):
                return await child
        except OSError as error:  # TimeoutError is one
            self._kill()  # it hangs
            raise NotForked(str(error) or "the template does not answer") from error
        finally:
            self._expected.pop(number, None)

    async def end(self) -> None:
        """End the template; whom it forked lives on."""
        self._kill()
        if not self._gone.done():
            await self._gone
        await asyncio.to_thread(self._reap)

    def _kill(self) -> None:
        """A child that was not reaped: its id is nobody else's."""
        os.kill(self.pid, signal.SIGKILL)

    def _read(self) -> None:
        try:
            packet, handles, _, _ = socket.recv_fds(self._control, LONGEST_PACKET, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, handles = b"", []
        if packet:
            self._take(json.loads(packet), handles)
        else:
            self._closed()

    def _take(self, told: dict[str, Any], handles: list[int]) -> None:
        if "ready" in told:
            self._ready.set_result(None)
        elif "pid" in told:
            self._forked(told["number"], ForkedChild(told["pid"], handles[0]))
        elif (child := self._children.pop(told["number"], None)) is not None:
            child.ended(told["code"])
        elif (expected := self._expected.get(told["number"])) is not None and not expected.done():
            expected.set_exception(NotForked(told.get("failed", "the new process died at once")))

    def _forked(self, number: int, child: ForkedChild) -> None:
        self._children[number] = child
        expected = self._expected.get(number)
        if expected is not None and not expected.done():
            expected.set_result(child)
        else:
            child.send_signal(signal.SIGKILL)  # it comes too late: nobody waits for it any more

    def _closed(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        for expected in self._expected.values():
            if not expected.done():
                expected.set_exception(NotForked("the template ended"))
        for child in self._children.values():
            child.watch()
        if not self._gone.done():
            self._gone.set_result(None)
