"""Addresses that users name (webhooks): which may be called at all. Knows names and numbers, calls nobody."""

import ipaddress
from urllib.parse import urlsplit

from engine.errors import UserError

_LONGEST_URL = 2000


def check_address(url: str, *, allow_private_networks: bool, param: str) -> None:
    """Refuse what could never be called. A name is checked again when it is resolved. Raises: UserError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError("invalid_url", f"{param}: {error}", param=param) from error
    if parts.scheme not in ("http", "https") or not host or port == 0 or len(url) > _LONGEST_URL:
        raise UserError("invalid_url", f"{param} must be an http or https URL with a host", param=param)
    if not allow_private_networks and is_private(host):
        raise UserError(
            "invalid_url",
            f"{param}: {host} is in a private network; set webhooks.allow_private_networks: true to allow that",
            param=param,
        )


def is_private(host: str) -> bool:
    """Whether a host, as far as it is a number or `localhost`, is not on the public internet."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
