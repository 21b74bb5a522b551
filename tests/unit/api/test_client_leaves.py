"""A client that leaves ends the work for it, and nothing that comes behind that work."""

import asyncio

import pytest

from api.asgi import Message, unless_disconnected


@pytest.mark.parametrize("also_done", [False, True])
def test_who_leaves_as_the_work_is_done_cancels_nothing_else(also_done: bool) -> None:
    async def main() -> str | None:
        gone, done = asyncio.Event(), asyncio.Event()
        watched = asyncio.Event()

        async def receive() -> Message:
            watched.set()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work() -> str:
            await done.wait()
            return "done"

        async def answer() -> str | None:
            found = await unless_disconnected(work(), receive, cancel=True)
            for _ in range(5):  # what is sent then takes its turns
                await asyncio.sleep(0)
            return found

        answering = asyncio.create_task(answer())
        await watched.wait()
        gone.set()
        if also_done:
            done.set()
        return await answering

    assert asyncio.run(main()) == ("done" if also_done else None)
