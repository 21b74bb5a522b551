"""An upstream that costs next to nothing and judges nothing, for load: OpenAI's chat by plain asyncio, the same bytes each time.

`stream` in the request makes a stream of `max_tokens` chunks; `metadata` may hold `pace_s` (between two of them) and `size` (bytes
of text in each). Inside a test: `with FastUpstream() as up`. As a process: `python -m upstreams.fast`, which prints its port.
"""

import asyncio
import json
import threading
from typing import Any, Self

USAGE = {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40}
FRAME: dict[str, Any] = {"id": "chatcmpl-1", "created": 1_760_000_000, "model": "fast"}
MESSAGE = {
    "role": "assistant",
    "content": "Twenty words or so are said here, as plain as an answer can be, again and again.",
}
WHOLE = FRAME | {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}],
    "usage": USAGE,
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(data: dict[str, Any]) -> bytes:
    return _chunked(b"data: " + json.dumps(FRAME | {"object": "chat.completion.chunk"} | data).encode() + b"\n\n")


def delta(content: dict[str, Any], finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}]})


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


BODY = json.dumps(WHOLE).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
FIRST = delta({"role": "assistant", "content": ""})
LAST = delta({}, "stop") + event({"choices": [], "usage": USAGE}) + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class FastUpstream:
    """Counts what tests ask for: whole answers and whole streams, streams open now and left in the middle, bytes handed over."""

    def __init__(self) -> None:
        self.whole = 0
        self.open = 0
        self.left = 0
        self.sent_bytes = 0
        self.port = 0
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def _run(self) -> None:
        async def main() -> None:
            self._over = asyncio.Event()
            server = await self.start()
            self._ready.set()
            await self._over.wait()
            server.close()

        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(main())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = json.loads(await reader.readexactly(_length(head)) or b"{}")
                if body.get("stream"):
                    await self._counted(reader, writer, body)
                else:
                    writer.write(ANSWER)
                    self.whole += 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _counted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Any) -> None:
        self.open += 1
        try:
            await self._stream(reader, writer, body)
            self.whole += 1
        except ConnectionError:
            self.left += 1
            raise
        finally:
            self.open -= 1

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Any) -> None:
        told = body.get("metadata", {})
        pace_s, size = float(told.get("pace_s", 0)), int(told.get("size", 5))
        content = delta({"content": "w" * (size - 1) + " "})
        writer.write(HEAD + FIRST)
        for _ in range(body.get("max_tokens", 100)):
            if reader.at_eof():
                raise ConnectionResetError
            writer.write(content)
            await writer.drain()
            self.sent_bytes += len(content)
            await asyncio.sleep(pace_s)
        writer.write(LAST)


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)


async def main() -> None:
    upstream = FastUpstream()
    server = await upstream.start()
    print(upstream.port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
