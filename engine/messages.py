"""What is wrong with the rendered `messages` of a step: asked before a model is, and by a dry run before anything is."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.plain_values import not_of_type, shown_expression
from engine.values import is_list, is_object, type_name

_SPEAKING = ("system", "developer", "user")  # whose messages are nothing without content


def messages_mistake(written: Any, value: Any) -> str | None:
    """The sentence, which names the expression; None where nothing is. `written` is one expression, or a list of messages."""
    if is_list(written):
        return _mistake_of_written(written, value)
    shown = shown_expression(written)
    if not is_list(value):
        return f"{shown}messages has to be a list, not {type_name(value)}"
    if not value:
        return f"{shown}messages may not be empty"
    for place, message in enumerate(value):
        if not is_object(message) or not isinstance(message.get("role"), str):
            return f"{shown}messages[{place}] has to be an object with a role"
        if message["role"] in _SPEAKING and not _is_content(message.get("content")):
            return f"{shown}{_no_content(place, message.get('content'))}"
    return None


def _mistake_of_written(written: Sequence[Mapping[str, Any]], value: Sequence[Mapping[str, Any]]) -> str | None:
    """Roles were checked when the definition was stored."""
    for place, (told, message) in enumerate(zip(written, value, strict=True)):
        if not _is_content(message["content"]):
            return f"{shown_expression(told['content'])}{_no_content(place, message['content'])}"
    return None


def _is_content(value: Any) -> bool:
    return isinstance(value, str) or is_list(value)


def _no_content(place: int, value: Any) -> str:
    return f"messages[{place}].content {not_of_type('text or a list of parts', value)}"
