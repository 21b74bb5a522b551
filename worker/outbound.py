"""Guards requests to addresses that users name: http(s) only, and no private network unless the operator allows it.

The name is resolved once and the connection goes to the address that was checked, so that a name cannot change its mind in between.
"""

import asyncio
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from engine.addresses import check_address, is_private
from engine.errors import FatalError, UserError


class Refused(FatalError):
    """The address may not be called."""

    def __init__(self, message: str) -> None:
        super().__init__("address_refused", message)


@dataclass(frozen=True, slots=True)
class GuardedTarget:
    """A URL with the checked address in place of the name, and the `host` header and TLS name that belong to it."""

    url: str
    host: str
    name: str


async def resolve(url: str, *, allow_private_networks: bool, param: str = "webhook_url") -> GuardedTarget:
    """Resolve and check; `param` names the address in messages. Raises: Refused."""
    try:
        check_address(url, allow_private_networks=allow_private_networks, param=param)
    except UserError as error:
        raise Refused(error.message) from error
    parts = urlsplit(url)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name can look like this
        raise Refused(f"{parts.hostname} cannot be resolved: {error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not allow_private_networks and any(is_private(address) for address in addresses):
        raise Refused(f"{parts.hostname} is in a private network (webhooks.allow_private_networks is false)")
    address = addresses[0]
    literal = f"[{address}]" if ":" in address else address
    netloc = f"{literal}:{port}"
    return GuardedTarget(
        url=urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")),
        host=parts.netloc.rpartition("@")[2],
        name=parts.hostname,
    )
