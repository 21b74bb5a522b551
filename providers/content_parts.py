"""An answer's content as text, where a server tells it in parts (Mistral's reasoning models do): OpenAI's answers have texts alone.

What was thought goes where others put it, into `reasoning_content`. Format: Mistral's `chat/completions`, content chunks
`text` and `thinking`.
"""

from typing import Any

from providers.provider import Json
from providers.shapes import as_objects, as_text, text_of


def settle_content(message: Json) -> None:
    """Change a message or a delta whose content is a list; every other stays as it came."""
    content: Any = message.get("content")
    if not isinstance(content, list):
        return
    message["content"] = text_of(content)
    thoughts = "".join(text_of(part.get("thinking")) for part in as_objects(content))
    if thoughts:
        message["reasoning_content"] = as_text(message.get("reasoning_content")) + thoughts
