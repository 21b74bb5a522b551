"""API keys: a random secret that is shown once and stored as its hash, and what its holder may do.

A key never changes after it was made but for its revocation; who needs other limits makes a new key. The secret has 256
random bits, so a plain SHA-256 is enough and a lookup by the hash tells nothing about it.
"""

import hashlib
import secrets
from dataclasses import dataclass
from fnmatch import fnmatchcase

from engine.budget_spec import BudgetSpec, Origin
from engine.budgets import put_budget
from engine.clock import new_id
from engine.errors import Conflict, NotFound
from engine.store.api_keys import find_keys, get_key, insert_key, key_by_hash, revoke_key
from engine.store.database import Row, Tx
from engine.store.json_text import dumps, loads
from engine.store.locks import lock_name

PREFIX = "agw-"
_SECRET_BYTES = 32
_SECRET_LENGTH = len(PREFIX) + 43
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may use; None: no limit. `allowed_models` are names as clients give them, `*` stands for any text."""

    allowed_models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_parallel: int | None = None

    @property
    def counted(self) -> bool:
        """Whether calls have to be counted for it."""
        return not (self.requests_per_minute is self.tokens_per_minute is self.max_parallel is None)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored. `admin`: may make and revoke keys and set budgets."""

    id: str
    name: str
    prefix: str
    admin: bool
    limits: KeyLimits
    created_us: int
    revoked_us: int | None

    def allows(self, *names: str) -> bool:
        """Whether a model known under these names may be used."""
        allowed = self.limits.allowed_models
        return allowed is None or any(fnmatchcase(name, pattern) for name in names for pattern in allowed)


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is made from. `admin` None: a key that nothing limits may administer, one with limits could lift them."""

    name: str
    limits: KeyLimits = KeyLimits()
    budget: BudgetSpec | None = None
    admin: bool | None = None

    @property
    def administers(self) -> bool:
        """`admin` where it was told."""
        unlimited = self.limits == KeyLimits() and self.budget is None
        return unlimited if self.admin is None else self.admin


def new_secret() -> str:
    """A secret that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> str | None:
    """What is stored of it; None for a text that was never made by `new_secret`, which need not be looked up."""
    if len(secret) != _SECRET_LENGTH or not secret.startswith(PREFIX):
        return None
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(tx: Tx, asked: NewKey, secret: str, now: int) -> ApiKey:
    """Store a key, and its own budget where it has one. Raises: Conflict where a key that holds has that name."""
    lock_name(tx, "api_keys")
    if any(row["revoked_us"] is None for row in find_keys(tx, asked.name)):
        raise Conflict("key_exists", f"there is a key named {asked.name} already", param="name")
    digest, limits = hash_of(secret), asked.limits
    assert digest is not None
    key_id = new_id()
    row: Row = {
        "id": key_id,
        "name": asked.name,
        "hash": digest,
        "prefix": secret[:_SHOWN],
        "admin": asked.administers,
        "allowed_models_json": None if limits.allowed_models is None else dumps(list(limits.allowed_models)),
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "max_parallel": limits.max_parallel,
        "created_us": now,
        "revoked_us": None,
    }
    insert_key(tx, row)
    if asked.budget is not None:
        put_budget(tx, asked.budget.own_of_key(key_id), Origin.KEY, now)
    return key_of(row)


def find_key(tx: Tx, secret_hash: str) -> ApiKey | None:
    """The key of that hash, a revoked one too."""
    row = key_by_hash(tx, secret_hash)
    return None if row is None else key_of(row)


def key_by_id(tx: Tx, key_id: str) -> ApiKey | None:
    """The key of that id, a revoked one too: a run goes on under the limits of the key that submitted it."""
    row = get_key(tx, key_id)
    return None if row is None else key_of(row)


def revoke(tx: Tx, told: str, now: int) -> ApiKey:
    """Revoke the key of that id or name. Raises: NotFound."""
    found = find_keys(tx, told)
    if not found:
        raise NotFound("key_not_found", f"there is no key {told}", param="key")
    holding = [row for row in found if row["revoked_us"] is None] or found
    revoke_key(tx, holding[-1]["id"], now)
    row = get_key(tx, holding[-1]["id"])
    assert row is not None
    return key_of(row)


def key_of(row: Row) -> ApiKey:
    """A row of `api_keys`."""
    models = row["allowed_models_json"]
    limits = KeyLimits(
        allowed_models=None if models is None else tuple(loads(models)),
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        max_parallel=row["max_parallel"],
    )
    return ApiKey(
        id=row["id"],
        name=row["name"],
        prefix=row["prefix"],
        admin=bool(row["admin"]),
        limits=limits,
        created_us=row["created_us"],
        revoked_us=row["revoked_us"],
    )
