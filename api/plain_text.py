"""Text that is stored or looked for as it is: without NUL, which PostgreSQL cannot hold, so that both databases answer alike, and
without halves of surrogate pairs, which no UTF-8 can hold and which JSON can spell.

JSON values (a run's input, a signal's payload, messages) are stored with both escaped, and may hold them.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from engine.errors import UserError

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NUL = "holds a NUL character (\\u0000), which cannot be stored"
_HALF = "holds half of a surrogate pair (\\ud800 to \\udfff), which cannot be stored"


def _plain(text: str) -> str:
    problem = _problem(text)
    if problem is not None:
        raise PydanticCustomError("invalid_text", "{problem}", {"problem": problem})
    return text


PlainText = Annotated[str, AfterValidator(_plain)]


def check_plain(told: Mapping[str, object]) -> None:
    """Parameters of a path or a query by name. Raises: UserError."""
    for name, value in told.items():
        problem = _problem(str(value)) or _problem(name)
        if problem is not None:
            shown = _UNSTORABLE.sub("?", name)[:100]
            raise UserError("invalid_text", f"{shown} {problem}", param=shown)


def _problem(text: str) -> str | None:
    found = _UNSTORABLE.search(text)
    if found is None:
        return None
    return _NUL if found[0] == "\0" else _HALF
