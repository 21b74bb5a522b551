"""Pages of other sites in a browser (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol): let in with an API key, and never without.

A browser asks first (a preflight, which carries no key) and hides an answer that does not name the page's site. A page that sends
`Authorization: Bearer` or `x-api-key` was given the key by somebody; nothing that a browser adds by itself counts here, so any site may.
Where no key is needed, pages of this machine may (`api.origin`).
"""

from api.asgi import Scope, Send

_PATHS = "/v1/"
_READABLE = ((b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*"))
_METHODS = b"GET, POST, PUT, DELETE"
_MAX_AGE_S = b"600"


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks if a page may send a request to the API."""
    if scope["method"] != "OPTIONS" or not scope["path"].startswith(_PATHS):
        return False
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names


async def send_preflight(scope: Scope, send: Send) -> None:
    """Any page may ask; what it then asks for needs its key."""
    wanted = next((value for name, value in scope["headers"] if name == b"access-control-request-headers"), b"")
    headers = [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", wanted or b"authorization, content-type"),
        (b"access-control-max-age", _MAX_AGE_S),
        (b"vary", b"access-control-request-headers"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def headers_for_pages(scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
    """What lets a page read the answer to a request that was let in; nothing for programs."""
    if not scope["path"].startswith(_PATHS) or not any(name == b"origin" for name, _ in scope["headers"]):
        return ()
    return _READABLE
