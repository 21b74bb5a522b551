"""What the expressions in a definition's values read, and what is wrong with these expressions themselves."""

import re
from dataclasses import dataclass

from engine.key_kinds import Key, Rendering
from engine.mistakes import shortened
from engine.spots import Spot
from engine.syntax import Expression, Read
from engine.templates import Template, parse_bare, parse_template

_DOUBLE_BRACES = re.compile(r"(?<!\$)\{\{\s*((?:inputs?|steps|outputs|run|item|index)\b[^{}]{0,200})\}\}")


@dataclass(frozen=True, slots=True)
class Reading:
    """Something that an expression reads, and where it stands."""

    read: Read
    spot: Spot


def readings(key: Key, spot: Spot) -> list[Reading]:
    """All that the expressions in a key's value read; notes what is wrong with them."""
    if key.rendering is Rendering.NONE or spot.findings.full:
        return []
    if key.rendering is Rendering.CONDITION:
        return _condition_readings(spot)
    found: list[Reading] = []
    _collect(spot, key.rendering is Rendering.TEXT, found)
    return found


def _condition_readings(spot: Spot) -> list[Reading]:
    if not isinstance(spot.node.value, str):
        return []
    parsed = parse_bare(spot.node.value)
    for problem in parsed.problems:
        spot.findings.add_problem(problem, spot.path, spot.node.place)
    return [Reading(read, spot) for read in parsed.reads]


def _collect(spot: Spot, blocks: bool, found: list[Reading]) -> None:
    if spot.findings.full:
        return
    if isinstance(spot.node.value, str):
        parsed = parse_template(spot.node.value, blocks=blocks)
        for problem in parsed.problems:
            spot.findings.add_problem(problem, spot.path, spot.node.place)
        found.extend(Reading(read, spot) for read in parsed.reads)
        _warn_of_failing(parsed, spot)
        _warn_of_double_braces(spot)
    for name in spot.node.entries or {}:
        _collect(spot.entry(name), blocks, found)
    for index in range(len(spot.node.items or [])):
        _collect(spot.item(index), blocks, found)


def _warn_of_failing(parsed: Template, spot: Spot) -> None:
    """Warns of each expression, outside of blocks, that can only fail: somebody may want that."""
    for part in parsed.parts:
        reason = spot.findings.reason(part) if isinstance(part, Expression) else None
        if isinstance(part, Expression) and reason is not None:
            place = spot.node.place if part is parsed.whole else spot.findings.within(part.text, spot.node.place)
            spot.findings.warn(f"{shortened(part.text)}: this can only fail: {reason}", spot.path, place)


def _warn_of_double_braces(spot: Spot) -> None:
    """Text in {{ }} is plain text; one that begins as expressions do was hardly meant as such."""
    foreign = _DOUBLE_BRACES.search(spot.node.value)
    if foreign is not None:
        place = spot.findings.within(foreign[0], spot.node.place)
        message = f"{shortened(foreign[0])} is plain text here; an expression is written ${{…}}"
        spot.findings.warn(message, spot.path, place, f"${{{re.sub('^inputs', 'input', foreign[1].strip())}}}")
