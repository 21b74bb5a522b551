"""What users, models and tools wrote, made fit to show: as text, cut where it is long. Escaping is the templates' own."""

import json
from dataclasses import dataclass
from typing import Any

HEAD_CHARACTERS = 1_200
HEAD_LINES = 16
MOST_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class Shown:
    """`head` is what is seen at once, `whole` what opens on demand (None: the head is all). `cut`: even that is not all."""

    is_text: bool
    head: str
    whole: str | None
    size: int
    cut: bool


def shown(value: Any) -> Shown:
    """Text as it is, other data as indented JSON."""
    is_text = isinstance(value, str)
    text = value if is_text else json.dumps(value, indent=2, ensure_ascii=False)
    head = _head(text)
    if head == text:
        return Shown(is_text, text, None, len(text), False)
    return Shown(is_text, head + " …", text[:MOST_CHARACTERS], len(text), len(text) > MOST_CHARACTERS)


def _head(text: str) -> str:
    lines = text[:HEAD_CHARACTERS].splitlines(keepends=True)
    return "".join(lines[:HEAD_LINES])
