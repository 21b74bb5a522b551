"""Checks the form of a definition against the tables in `engine.keys`: known keys, right types, right ranges.

Each check takes a node and gives the plain value, or None after noting what is wrong. References between steps are
`engine.references`' part.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.constants import constant
from engine.definition import Concurrency, RetryPolicy
from engine.durations import parse_duration
from engine.json_schemas import schema_mistake
from engine.key_kinds import Key, Kind, Rendering
from engine.keys import (
    CONCURRENCY_KEYS,
    EXPRESSION_WORDS,
    ID_PATTERN,
    MAX_NAME,
    RETRY_KEYS,
    SIGNAL_PATTERN,
    TAKEN_NAMES,
)
from engine.llm_keys import MAX_TOOLS, MESSAGE_ROLES, TOOL_PATTERN
from engine.mistakes import shortened
from engine.plain_values import WANTED, value_mistake
from engine.spots import Spot, wrong_type
from engine.states import RETRIED_BY_DEFAULT, ErrorClass
from engine.templates import parse_bare, parse_template, unwrap
from engine.values import type_name

_STATUS = Key(Kind.INTEGER, "An HTTP status.", minimum=100, maximum=599)
_CONDITION_CONSTANTS = {True: "true", False: "false"}


def check_key(key: Key, spot: Spot) -> Any:
    """The plain value of a key, or None after noting what is wrong with it."""
    if key.rendering is Rendering.VALUE and isinstance(spot.node.value, str) and "${" in spot.node.value:
        _check_open(key, spot)
        return spot.node.value  # what it gives is mostly known only once it is rendered
    check = _CHECKS.get(key.kind)
    return spot.node.plain() if check is None else check(key, spot)


def _check_open(key: Key, spot: Spot) -> None:
    """Notes a text that is none of what the key takes, and warns of an expression that gives what it never takes."""
    parsed = parse_template(spot.node.value)
    known = constant(parsed.whole)
    if parsed.whole is None and not parsed.problems and key.kind in WANTED:
        spot.mistake(f"has to be {WANTED[key.kind]}, and a text with an expression in it is text")
    elif known is not None and known.reason is None:
        left_out = known.value is None and not key.required
        message = None if left_out else value_mistake(key, known.value)
        if message is not None:
            spot.warning(f"{shortened(spot.node.value)}: this can only fail: {message}")


def check_known(spot: Spot, known: Mapping[str, Key], what: str) -> None:
    """Notes keys that the language does not have."""
    for name in spot.node.entries or {}:
        if name not in known:
            spot.key_mistake(name, f"{what} has no key '{name[:60]}'", spot.nearest(name, known))


def check_required(spot: Spot, known: Mapping[str, Key], what: str) -> None:
    """Notes required keys that are not there."""
    for name, key in known.items():
        if key.required and name not in (spot.node.entries or {}):
            spot.mistake(f"{what} needs `{name}`")


def check_name(spot: Spot, what: str, *, taken: Iterable[str] = TAKEN_NAMES) -> str | None:
    """An id or output name, or None after noting what is wrong with it."""
    name = spot.node.value
    if not isinstance(name, str):
        wrong_type(spot, "text")
        return None
    if not re.fullmatch(ID_PATTERN, name) or len(name) > MAX_NAME or name.endswith("\n"):
        usable = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")[:MAX_NAME]
        fits = re.fullmatch(ID_PATTERN, usable) is not None
        spot.mistake(
            f"{what} is made of a-z, 0-9 and _, begins with a letter, and has at most {MAX_NAME} characters",
            usable if fits else None,
        )
        return None
    if name in taken:
        spot.mistake(f"the name '{name}' is taken by the language")
        return None
    return name


def _text(key: Key, spot: Spot) -> str | None:
    if isinstance(spot.node.value, str):
        return spot.node.value
    wrong_type(spot, "text")
    return None


def _plain(key: Key, spot: Spot) -> Any:
    """Data that is checked in the same way once an expression has given it."""
    value = spot.node.plain()
    message = value_mistake(key, value, written=key.rendering is Rendering.VALUE)
    if message is not None:
        spot.mistake(message)
        return None
    return int(value) if key.kind is Kind.INTEGER else value


def _name(key: Key, spot: Spot) -> str | None:
    value = _text(key, spot)
    if value is not None and (not value.strip() or len(value) > 2 * MAX_NAME or "${" in value):
        spot.mistake(f"has to be a plain name of 1 to {2 * MAX_NAME} characters, without expressions")
        return None
    return value


def _id(key: Key, spot: Spot) -> str | None:
    return check_name(spot, "an output name", taken=TAKEN_NAMES | EXPRESSION_WORDS)


def _duration(key: Key, spot: Spot) -> float | None:
    try:
        return parse_duration(spot.node.value)
    except ValueError as error:
        spot.mistake(str(error))
        return None


def _choice(key: Key, spot: Spot) -> str | None:
    value = spot.node.value
    if isinstance(value, str) and value in key.choices:
        return value
    suggestion = spot.nearest(value, key.choices) if isinstance(value, str) else None
    spot.mistake(f"has to be one of {', '.join(key.choices)}", suggestion)
    return None


def _choices(key: Key, spot: Spot) -> list[str] | None:
    if not spot.node.items:
        wrong_type(spot, f"a list of {', '.join(key.choices)}")
        return None
    found = [_choice(key, spot.item(index)) for index in range(len(spot.node.items))]
    return [choice for choice in found if choice is not None]


def _on_error(key: Key, spot: Spot) -> str | None:
    """`steps` stands for an object that holds them; the steps themselves are read with all others."""
    entries = spot.node.entries
    if entries is None:
        return _choice(key, spot)
    for name in entries:
        if name != "steps":
            spot.key_mistake(name, f"only `steps` may stand here, not '{name[:60]}'", "steps")
    if "steps" not in entries:
        spot.mistake("needs `steps`")
    return "steps"


def _signal(key: Key, spot: Spot) -> str | None:
    value = _text(key, spot)
    if value is not None and not re.fullmatch(SIGNAL_PATTERN, value):
        spot.mistake("a signal's name has 1 to 100 characters of a-z, A-Z, 0-9, _, . and -")
        return None
    return value


def _statuses(key: Key, spot: Spot) -> list[int] | None:
    items = [spot] if spot.node.items is None else [spot.item(index) for index in range(len(spot.node.items))]
    if not items:
        wrong_type(spot, "an HTTP status, or a list of them")
        return None
    return [status for item in items if (status := _plain(_STATUS, item)) is not None]


def _condition(key: Key, spot: Spot) -> str | None:
    value = spot.node.value
    if isinstance(value, bool):
        return _CONDITION_CONSTANTS[value]
    if not isinstance(value, str) or not value.strip():
        wrong_type(spot, "an expression that gives a boolean")
        return None
    known = constant(parse_bare(value).whole)
    if known is not None and not isinstance(known.value, bool):
        wrong = known.reason or f"a condition must give a boolean, not {type_name(known.value)}"
        spot.warning(f"{shortened(value)}: this can only fail: {wrong}")
    return unwrap(value)


def _messages(key: Key, spot: Spot) -> Any:
    value = spot.node.value
    if isinstance(value, str) and parse_template(value, blocks=True).whole:
        return value
    if not spot.node.items:
        wrong_type(spot, "a list of messages, or one expression that gives a list")
        return None
    for index in range(len(spot.node.items)):
        _message(spot.item(index))
    return spot.node.plain()


def _message(spot: Spot) -> None:
    entries = spot.node.entries
    if entries is None:
        wrong_type(spot, "a message with `role` and `content`")
        return
    for name in entries:
        if name not in ("role", "content", "name"):
            spot.key_mistake(
                name, f"a message has no key '{name[:60]}'", spot.nearest(name, ("role", "content", "name"))
            )
    for name in ("role", "content"):
        if name not in entries:
            spot.mistake(f"a message needs `{name}`")
    if "role" in entries and entries["role"].value not in MESSAGE_ROLES:
        role = entries["role"].value
        suggestion = spot.nearest(role, MESSAGE_ROLES) if isinstance(role, str) else None
        spot.entry("role").mistake(f"has to be one of {', '.join(MESSAGE_ROLES)}", suggestion)
    if "content" in entries and not isinstance(entries["content"].value, str | list):
        wrong_type(spot.entry("content"), "text or a list of parts")


def _json_schema(key: Key, spot: Spot) -> dict[str, Any] | None:
    if spot.node.entries is None:
        wrong_type(spot, "a JSON Schema, which is an object")
        return None
    schema = spot.node.plain()
    wrong = schema_mistake(schema)
    if wrong is None:
        return schema
    where, message, suggestion = wrong
    spot.findings.add(message, spot.path + where, spot.node.place, suggestion)
    return None


def _tools(key: Key, spot: Spot) -> list[str] | None:
    """Entries such as `server/tool` and `server/*`, none of them twice."""
    if not spot.node.items:
        wrong_type(spot, "a list of tools, such as [docs/search, git/*]")
        return None
    if len(spot.node.items) > MAX_TOOLS:
        spot.mistake(f"may name at most {MAX_TOOLS} tools")
    found: list[str] = []
    for index in range(len(spot.node.items)):
        item = spot.item(index)
        value = _text(key, item)
        if value is None:
            continue
        if not re.fullmatch(TOOL_PATTERN, value) or len(value) > 2 * MAX_NAME:
            item.mistake("has to be `server/tool`, or `server/*` for all tools of a server")
        elif value in found:
            item.mistake(f"'{value}' is named twice")
        else:
            found.append(value)
    return found


def _concurrency(key: Key, spot: Spot) -> Concurrency | None:
    if spot.node.entries is None:
        if isinstance(spot.node.value, int):
            limit = _plain(CONCURRENCY_KEYS["limit"], spot)
            return None if limit is None else Concurrency(limit)
        wrong_type(spot, 'a whole number, or an object such as {limit: 5, key: "${input.customer}"}')
        return None
    check_known(spot, CONCURRENCY_KEYS, "concurrency")
    check_required(spot, CONCURRENCY_KEYS, "concurrency")
    given = {
        name: check_key(CONCURRENCY_KEYS[name], spot.entry(name))
        for name in CONCURRENCY_KEYS
        if name in spot.node.entries
    }
    if given.get("limit") is None:
        return None
    return Concurrency(given["limit"], given.get("key"))


def _retry(key: Key, spot: Spot) -> RetryPolicy | None:
    if spot.node.entries is None:
        wrong_type(spot, "an object such as {max_attempts: 3}")
        return None
    check_known(spot, RETRY_KEYS, "retry")
    given = {name: check_key(RETRY_KEYS[name], spot.entry(name)) for name in spot.node.entries if name in RETRY_KEYS}
    given = {name: value for name, value in given.items() if value is not None}
    policy = RetryPolicy(
        max_attempts=given.get("max_attempts", 3),
        initial_s=given.get("initial", 1.0),
        factor=float(given.get("factor", 2.0)),
        max_s=given.get("max", max(60.0, given.get("initial", 1.0))),
        jitter=given.get("jitter", True),
        errors=frozenset(ErrorClass(name) for name in given["errors"]) if "errors" in given else RETRIED_BY_DEFAULT,
    )
    if policy.initial_s > policy.max_s:
        spot.mistake("`initial` is longer than `max`")
    return policy


_CHECKS: dict[Kind, Callable[[Key, Spot], Any]] = {
    Kind.BOOLEAN: _plain,
    Kind.CHOICE: _choice,
    Kind.CHOICES: _choices,
    Kind.CONCURRENCY: _concurrency,
    Kind.CONDITION: _condition,
    Kind.DURATION: _duration,
    Kind.ID: _id,
    Kind.INTEGER: _plain,
    Kind.JSON_SCHEMA: _json_schema,
    Kind.LIST: _plain,
    Kind.MESSAGES: _messages,
    Kind.NAME: _name,
    Kind.NUMBER: _plain,
    Kind.NUMBERS: _plain,
    Kind.OBJECT: _plain,
    Kind.ON_ERROR: _on_error,
    Kind.PICTURES: _plain,
    Kind.RETRY: _retry,
    Kind.SIGNAL: _signal,
    Kind.STATUSES: _statuses,
    Kind.STOP: _plain,
    Kind.TEXT: _plain,
    Kind.TIME: _plain,
    Kind.TOOLS: _tools,
    Kind.URL: _plain,
}
