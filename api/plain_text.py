"""Text that is stored or looked for as it is: without NUL, which PostgreSQL cannot hold, so that both databases answer alike.

JSON values (a run's input, a signal's payload, messages) are stored with it escaped, and may hold it.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from engine.errors import UserError

_MESSAGE = "holds a NUL character (\\u0000), which cannot be stored"


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("invalid_text", _MESSAGE)
    return text


PlainText = Annotated[str, AfterValidator(_without_nul)]


def check_plain(told: Mapping[str, object]) -> None:
    """Parameters of a path or a query by name. Raises: UserError."""
    for name, value in told.items():
        if "\0" in str(value) or "\0" in name:
            shown = name.replace("\0", "?")[:100]
            raise UserError("invalid_text", f"{shown} {_MESSAGE}", param=shown)
