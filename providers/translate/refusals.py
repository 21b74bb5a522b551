"""What a request says that cannot be said in another dialect, or makes no sense in its own: refused by name, never left out."""

from collections.abc import Sequence
from typing import Any, cast

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Json
from providers.shapes import as_object, as_objects


def refused(param: str, message: str) -> ProviderError:
    """The error for content that a candidate cannot be given: the client's to change, and nobody else's to answer."""
    told = f"{param}: {message}"
    return ProviderError(ErrorClass.INVALID_REQUEST, told, status=400, code="unsupported_value", param=param)


def parts_in(content: Any, path: str, *, kind: str = "text") -> list[Json]:
    """The parts of a content that may also be one text, which becomes a part of type `kind`. Raises: ProviderError."""
    if isinstance(content, str):
        return [{"type": kind, "text": content}]
    if content is None:
        return []
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in cast(list[Any], content)):
        raise refused(path, "has to be a text or a list of objects")
    return cast(list[Json], content)


def text_in(fields: Json, key: str, path: str) -> str:
    """A text that has to be there. Raises: ProviderError."""
    text = fields.get(key)
    if not isinstance(text, str):
        raise refused(f"{path}.{key}", "a text is required")
    return text


def left_in_messages(messages: Sequence[Json], taken: frozenset[str]) -> list[str]:
    """What chat messages say besides the keys in `taken`, named for the client: `messages.name`, and so on.

    Thoughts are not lost where their signed blocks are carried, nor is a tool's name where its call has it.
    """
    left: dict[str, None] = {}
    for message in messages:
        for key in message.keys() - taken:
            known = message.get("thinking_blocks") if key.startswith("reasoning") else message.get("role") == "tool"
            if message[key] and not ((key.startswith("reasoning") or key == "name") and known):
                left[f"messages.{key}"] = None
        if any(_tells_detail(part) for part in as_objects(message.get("content"))):
            left["image_url.detail"] = None
    return list(left)


def _tells_detail(part: Json) -> bool:
    return as_object(part.get("image_url")).get("detail") not in (None, "auto")
