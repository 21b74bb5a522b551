"""The one HTTP client of a process: JSON out, JSON or lines back, every way to fail turned into a ProviderError.

aiohttp because it costs 0.14 ms of CPU a call where httpx2 costs 0.9. Redirects are not followed (they would carry the key
to another host), and no time limit but connecting is set here: `providers.timers` holds the other three.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import aiohttp
import orjson

from engine.states import ErrorClass
from providers.errors import Complaint, ProviderError, complaint_in, failure
from providers.json_text import parse

MAX_BODY_BYTES = 64 * 1024 * 1024
_LONGEST_HEADER = 128 * 1024  # aiohttp's own limit of 8 KiB is less than the cookies and policies of some proxies
_MOST_HEADERS = 1000
_ERROR_BODY_SHOWN = 300
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_END_GRACE_S = 0.05


class HttpClient:
    """Holds one connection pool. Made anywhere; the pool is opened on the running loop by the first call."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], payload: Any = None, connect_s: float = 5.0
    ) -> aiohttp.ClientResponse:
        """The response once its headers are there, any status; the caller closes it. Raises: ProviderError."""
        data = None if payload is None else orjson.dumps(payload)
        try:
            return await self._open().request(
                method,
                url,
                data=data,
                headers={"Content-Type": "application/json", **headers} if data is not None else headers,
                allow_redirects=False,
                timeout=_connecting_within(connect_s),
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise connection_failure(error) from error

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], payload: Any = None, connect_s: float = 5.0
    ) -> Any:
        """The decoded body of a 2xx. Raises: ProviderError for any other status, an error body, or no JSON."""
        response = await self.send(method, url, headers=headers, payload=payload, connect_s=connect_s)
        try:
            return await read_json(response)
        finally:
            response.release()

    async def close(self) -> None:
        """Close the pool; a later call opens a new one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=60)
            # Cookies of one request are no other's: this process speaks for many callers.
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                max_field_size=_LONGEST_HEADER,
                max_headers=_MOST_HEADERS,
            )
            self._loop = loop
        return self._session


@lru_cache(maxsize=64)
def _connecting_within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds)


async def read_json(response: aiohttp.ClientResponse) -> Any:
    """The decoded body of a 2xx. Raises: ProviderError for another status, an error body, or a body that is no JSON."""
    raw = await _read(response)
    if 200 <= response.status < 300:
        return decoded(raw, response.headers)
    body = _json_in(raw)
    raise failure(complaint_in(body) or _unreadable(response, raw), status=response.status, headers=response.headers)


def decoded(raw: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> Any:
    """The body of a 2xx. Raises: ProviderError for an error body or one that is no JSON."""
    body = _json_in(raw)
    if (complaint := complaint_in(body)) is not None:
        raise failure(complaint, status=None, headers=headers)
    if body is None:
        raise ProviderError.unseen(ErrorClass.SERVER_ERROR, f"The upstream's answer is no JSON: {_shown(raw)}")
    return body


async def read_pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The body of a 2xx as it arrives. Raises: ProviderError for another status, and where the connection breaks."""
    if not 200 <= response.status < 300:
        await read_json(response)
    try:
        while piece := await response.content.readany():
            yield piece
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise connection_failure(error) from error


async def let_end(response: aiohttp.ClientResponse) -> None:
    """Give a stream that has said its last word a moment to end, so that its connection can be used again."""
    try:
        async with asyncio.timeout(_END_GRACE_S):
            while await response.content.readany():
                pass
    except (aiohttp.ClientError, TimeoutError, OSError):
        response.close()


def connection_failure(error: Exception) -> ProviderError:
    """The ProviderError for what aiohttp raised. Only a failure to connect is sure to have cost nothing."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ProviderError(ErrorClass.TIMEOUT, f"No connection to the upstream within its time limit. {text}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ProviderError(ErrorClass.CONNECTION, f"No connection to the upstream. {text}")
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError)):
        return ProviderError(ErrorClass.INVALID_REQUEST, f"The upstream's address or a header is not valid. {text}")
    if isinstance(error, TimeoutError):
        return ProviderError.unseen(ErrorClass.TIMEOUT, f"The upstream did not answer in time. {text}")
    return ProviderError.unseen(ErrorClass.CONNECTION, f"The connection to the upstream broke. {text}")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await response.content.readany():
            size += len(piece)
            if size > MAX_BODY_BYTES:
                response.close()
                raise ProviderError.unseen(
                    ErrorClass.SERVER_ERROR, f"The answer is larger than {MAX_BODY_BYTES} bytes."
                )
            pieces.append(piece)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise connection_failure(error) from error
    return b"".join(pieces)


def _json_in(raw: bytes) -> Any:
    """What the bytes hold, None where that is no JSON; some servers put a byte order mark before it."""
    try:
        return parse(raw.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return None


def _unreadable(response: aiohttp.ClientResponse, raw: bytes) -> Complaint:
    return Complaint(f"The upstream answered {response.status} {response.reason or ''}: {_shown(raw)}")


def _shown(raw: bytes) -> str:
    return raw[:_ERROR_BODY_SHOWN].decode("utf-8", "replace")
