"""What a chat call gives a workflow: its input, its tags, and what of the call has no meaning there. Pure."""

from collections.abc import Mapping
from typing import Any

from api.errors import HttpError
from api.submissions import MAX_TAG_KEY, MAX_TAG_VALUE, MAX_TAGS
from engine.definition import Definition
from providers.provider import Json
from providers.shapes import as_object, as_objects, text_of

_CHAT_INPUTS = ("message", "messages")
# Parts of a request that are used, or that ask for nothing: all others are named as dropped.
_USED = frozenset(
    {"model", "messages", "input", "instructions", "system", "stream", "stream_options", "metadata", "store", "user",
     "safety_identifier", "prompt_cache_key"}
)  # fmt: skip
_ASKS_FOR_NOTHING: tuple[Any, ...] = (None, [], {})


def input_of(definition: Definition, chat: Json) -> dict[str, Any]:
    """The run's input: what the workflow declares of `message` and `messages`, both where it declares nothing, or else the
    one input of type string that it has. Raises: HttpError.
    """
    messages = as_objects(chat.get("messages"))
    asked = [message for message in messages if message.get("role") == "user"]
    if not asked:
        raise HttpError(
            400, "invalid_input", "a workflow is given the last user message, and there is none", param="messages"
        )
    given = {"message": text_of(asked[-1].get("content")), "messages": messages}
    declared = definition.inputs
    if declared is None:
        return given
    if wanted := [name for name in _CHAT_INPUTS if name in declared]:
        return {name: given[name] for name in wanted}
    texts = [name for name, schema in declared.items() if as_object(schema).get("type") == "string"]
    if len(texts) != 1:
        raise HttpError(400, "invalid_input", _unfit(definition.name, declared), param="model")
    return {texts[0]: given["message"]}


def _unfit(name: str, declared: Mapping[str, Any]) -> str:
    inputs = ", ".join(f"{key} ({as_object(schema).get('type', 'any')})" for key, schema in declared.items()) or "none"
    return (
        f"the workflow {name} takes other inputs than a chat call gives: {inputs}; a chat call gives `message`, `messages` or "
        f"the only input of type string. POST /v1/workflow/{name} takes them all"
    )


def tags_of(body: Json) -> dict[str, str]:
    """The request's `metadata` as tags of its calls or its run, as far as they fit."""
    told = as_object(body.get("metadata"))
    return {key: value for key, value in list(told.items())[:MAX_TAGS] if _fits(key, value)}


def dropped_names(body: Json) -> list[str]:
    """What the request asks for and a workflow cannot be told, such as `temperature`: its steps say that themselves."""
    told = as_object(body.get("metadata"))
    names = [key for key, value in body.items() if key not in _USED and value not in _ASKS_FOR_NOTHING]
    return names + [f"metadata.{key}" for key in told if key not in tags_of(body)]


def _fits(key: str, value: object) -> bool:
    return len(key) <= MAX_TAG_KEY and isinstance(value, str) and len(value) <= MAX_TAG_VALUE
