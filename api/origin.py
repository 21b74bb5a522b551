"""Keeps other web sites out of a gateway that asks for no key: a page from anywhere can make a browser send requests to loopback.

Programs send no Origin and are not concerned. A browser tells where a page came from (Origin), and the name it was sent to (Host):
on a loopback address that name must be one of this machine, or a foreign name was pointed at it (DNS rebinding).
"""

import ipaddress
from urllib.parse import urlsplit

from api.asgi import Scope
from api.errors import HttpError


def is_loopback(host: str) -> bool:
    """Whether a host name or number means this machine itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_origin(scope: Scope, *, on_loopback: bool) -> None:
    """Refuse what another web site makes a browser send. Raises: HttpError 403."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
    host = headers.get(b"host", "")
    if on_loopback and host and not is_loopback(_name(f"//{host}")):
        raise HttpError(403, "foreign_host", f"this gateway listens on loopback and is not called {host!r}")
    origin = headers.get(b"origin")
    if origin is None or is_loopback(_name(origin)):
        return
    if origin.partition("://")[2] != host:
        raise HttpError(403, "foreign_origin", f"pages of {origin} may not use this gateway without an API key")


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
