"""The floor that `bench_gateway.py` measures against: FastAPI and aiohttp passing bytes on, and nothing else.

It reads nothing, books nothing, checks nothing: the cost of HTTP in, HTTP out in Python. Started as
`python gateway_floor.py PORT UPSTREAM LOOP`, LOOP being uvicorn's name of an event loop: asyncio or uvloop.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app.state.session:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/chat/completions")
async def forward(request: Request) -> Response:
    session: aiohttp.ClientSession = request.app.state.session
    headers = {"content-type": "application/json"}
    answer = await session.post(f"{sys.argv[2]}/chat/completions", data=await request.body(), headers=headers)
    if answer.content_type == "text/event-stream":
        return StreamingResponse(pieces(answer), media_type="text/event-stream")
    try:
        return Response(await answer.read(), media_type="application/json")
    finally:
        answer.release()


async def pieces(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop=sys.argv[3], log_level="error", access_log=False)
