"""Results that are used again: the same rendered call, within the time that its step names, by the same API key."""

import hashlib
from collections.abc import Mapping
from typing import Any

from engine.definition import Step
from engine.errors import TooLarge
from engine.expressions import render
from engine.key_kinds import Rendering
from engine.keys import STEP_TYPES
from engine.ports import Succeeded
from engine.store.cached_results import cached_result, replace_cached_result
from engine.store.database import Tx
from engine.store.json_text import dumps
from engine.store.locks import lock_name
from engine.store.payloads import pack, unpack


def call_digest(step: Step, scope: Mapping[str, Any], key_id: str | None) -> str:
    """Equal for steps that ask for the same. Raises: ExpressionError."""
    keys = STEP_TYPES[step.type].keys
    rendered = {
        name: render(value, scope, blocks=keys[name].rendering is Rendering.TEXT)
        if keys[name].rendering is not Rendering.NONE
        else value
        for name, value in sorted(step.fields.items())
    }
    return hashlib.sha256(dumps([step.type, key_id, rendered]).encode(errors="surrogatepass")).hexdigest()


def recall(tx: Tx, digest: str, now: int) -> Succeeded | None:
    """The result of that call, where it is still good."""
    row = cached_result(tx, digest, now)
    return None if row is None else Succeeded(unpack(tx, row["output_json"], row["output_digest"]), row["model"])


def remember(tx: Tx, digest: str, result: Succeeded, lifetime_s: float, now: int) -> None:
    """Keep a result; safe to repeat. One that is too large is not kept: its step fails with that."""
    tx.point("remember")
    lock_name(tx, f"cache:{digest}")
    try:
        text, payload = pack(tx, result.output, now)
    except TooLarge:
        return
    row = {"digest": digest, "output_json": text, "output_digest": payload, "model": result.model, "created_us": now}
    replace_cached_result(tx, row | {"expires_us": now + int(lifetime_s * 1_000_000)}, now)
