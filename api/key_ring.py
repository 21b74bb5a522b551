"""Finds the key that a request carries. What was found is remembered for a second, so a revocation holds everywhere within two."""

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from engine.api_keys import ApiKey, find_key, hash_of
from engine.store.database import Database

REMEMBERED_S = 1.0
_REMEMBERED = 4096

Headers = Sequence[tuple[bytes, bytes]]


class KeyRing:
    """One for a process. Remembers hashes and keys, never a secret; also that a hash belongs to no key."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()
        self._by_id: OrderedDict[str, ApiKey] = OrderedDict()

    async def of_request(self, headers: Headers) -> ApiKey | None:
        """The key of a request, a revoked one too; None where it carries none that was ever made."""
        for secret in _secrets(headers):
            digest = hash_of(secret)
            if digest is not None and (key := await self._find(digest)) is not None:
                return key
        return None

    def limits_of(self, key_id: str | None) -> ApiKey | None:
        """A key that made a request lately, with its models and limits, which never change; whether it still holds is not told."""
        return None if key_id is None else self._by_id.get(key_id)

    def forget(self) -> None:
        """Look everything up anew: keys were made or revoked here."""
        self._known.clear()

    async def _find(self, digest: str) -> ApiKey | None:
        known = self._known.get(digest)
        if known is not None and self._clock() < known[0]:
            return known[1]
        until = self._clock() + REMEMBERED_S  # from before it was read: what is found may be that old
        key = await self._database.read(lambda tx: find_key(tx, digest))
        self._known[digest] = (until, key)
        self._known.move_to_end(digest)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        if key is not None:
            self._by_id[key.id] = key
            self._by_id.move_to_end(key.id)
        while len(self._by_id) > _REMEMBERED:
            self._by_id.popitem(last=False)
        return key


def carries_credentials(headers: Headers) -> bool:
    """Whether a request tried to show a key."""
    return any(True for _ in _secrets(headers))


def _secrets(headers: Headers) -> Iterable[str]:
    """`Authorization: Bearer`, `x-api-key`, or the password of `Authorization: Basic`, which is what a browser can be asked for.

    A browser adds a password that it remembers to requests that other sites make; it marks those, and there it does not count.
    The mark is Sec-Fetch-Site, which is not sent over plain HTTP to another machine: there Origin tells.
    """
    basic = None
    for name, value in headers:
        if name == b"x-api-key":
            yield value.decode("latin-1").strip()
        elif name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                yield rest.strip()
            elif scheme.lower() == "basic":
                basic = rest.strip()
    if basic is not None and not _is_foreign(headers):
        yield _password(basic)


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser says that another site's page made the request."""
    told = {name: value for name, value in headers if name in (b"sec-fetch-site", b"origin", b"host")}
    site, origin = told.get(b"sec-fetch-site"), told.get(b"origin")
    if site is not None:
        return site not in (b"same-origin", b"none")
    return origin is not None and origin.partition(b"://")[2] != told.get(b"host")


def _password(basic: str) -> str:
    try:
        return base64.b64decode(basic, validate=True).decode("latin-1").partition(":")[2]
    except binascii.Error:
        return ""
