"""The floor that `bench_gateway.py` measures against: FastAPI and aiohttp passing bytes on, and nothing else.

It books nothing and checks nothing: the cost of HTTP in, HTTP out in Python. Started as `python gateway_floor.py PORT UPSTREAM LOOP KIND`:
LOOP is uvicorn's name of an event loop, asyncio or uvloop. KIND is `bytes`, which reads nothing either, over uvicorn's fast HTTP
parser (httptools), or `json`, the forwarder that people write, which reads what is asked to know whether it is to be streamed,
and what is answered, over the parser that `pip install uvicorn` comes with (h11).
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app.state.session:
        yield


app = FastAPI(lifespan=lifespan)


async def forward_json(request: Request) -> Response:
    session: aiohttp.ClientSession = request.app.state.session
    body = await request.json()
    answer = await session.post(f"{sys.argv[2]}/chat/completions", json=body)
    if body.get("stream"):
        return StreamingResponse(pieces(answer), media_type="text/event-stream")
    async with answer:
        return JSONResponse(await answer.json(), status_code=answer.status)


async def forward_bytes(request: Request) -> Response:
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
    forward, http = {"json": (forward_json, "h11"), "bytes": (forward_bytes, "httptools")}[sys.argv[4]]
    app.post("/v1/chat/completions")(forward)
    quiet: dict[str, Any] = {"log_level": "error", "access_log": False}
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop=sys.argv[3], http=http, **quiet)
