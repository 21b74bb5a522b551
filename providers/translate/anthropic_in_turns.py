"""The system prompt and the turns of an Anthropic request as OpenAI chat messages.

A user turn that brings tool results becomes one `tool` message for each, then a user message with the rest; pictures inside a
result go into that user message, since a `tool` message holds text alone. Formats: as in `anthropic_in`.
"""

from typing import Any

import orjson

from providers.completions import tool_call
from providers.provider import Json
from providers.shapes import as_list, as_object, as_objects, as_text
from providers.translate.refusals import parts_in, refused, text_in


class Turns:
    """Converts one request's messages. What is lost on the way is added to `dropped`.

    `reasoning`: the target takes what an assistant thought before as `reasoning_content`.
    """

    def __init__(self, dropped: list[str], *, reasoning: bool) -> None:
        self._dropped = dropped
        self._reasoning = reasoning

    def of(self, body: Json) -> list[Json]:
        """All messages, the system prompt first. Raises: ProviderError(invalid_request)."""
        messages: list[Json] = []
        if system := self._system(body.get("system"), "system"):
            messages.append({"role": "system", "content": system})
        turns = as_objects(body.get("messages"))
        for at, turn in enumerate(turns):
            messages += self._turn(turn, f"messages.{at}")
        if turns and turns[-1].get("role") == "assistant" and not self._reasoning:
            self._dropped.append("prefill")  # OpenAI answers anew where Anthropic goes on
        return messages

    def _turn(self, turn: Json, path: str) -> list[Json]:
        content: Any = turn.get("content")
        blocks = parts_in(content, f"{path}.content")
        match turn.get("role"):
            case "user":
                return self._user(blocks, path)
            case "assistant":
                return [self._assistant(blocks, path)]
            case "system":
                return [{"role": "system", "content": self._system(content, f"{path}.content")}]
            case role:
                raise refused(f"{path}.role", f"there is no role `{role}`")

    def _system(self, system: Any, path: str) -> str:
        blocks = enumerate(parts_in(system, path))
        return "\n\n".join(text for at, block in blocks if (text := self._text(block, f"{path}.{at}")))

    def _user(self, blocks: list[Json], path: str) -> list[Json]:
        results: list[Json] = []
        parts: list[Json] = []
        for at, block in enumerate(blocks):
            where = f"{path}.content.{at}"
            if block.get("type") == "tool_result":
                result, pictures = self._result(block, where)
                results.append(result)
                parts += pictures
            else:
                parts += self._parts(block, where)
        if not parts:
            return results
        parts = _merged(parts)
        plain = len(parts) == 1 and parts[0]["type"] == "text"
        return [*results, {"role": "user", "content": parts[0]["text"] if plain else parts}]

    def _result(self, block: Json, path: str) -> tuple[Json, list[Json]]:
        """The `tool` message, and what of the result it cannot hold."""
        self._note(block)
        parts: list[Json] = []
        for at, inner in enumerate(parts_in(block.get("content"), f"{path}.content")):
            parts += self._parts(inner, f"{path}.content.{at}")
        others = [part for part in parts if part["type"] != "text"]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        if block.get("is_error") is True:  # no field for it there: the model has to read it
            text = f"Error: {text}"
        identity = text_in(block, "tool_use_id", path)
        if others:
            others.insert(0, {"type": "text", "text": f"Attachments of the tool result {identity}:"})
        return {"role": "tool", "tool_call_id": identity, "content": text}, others

    def _assistant(self, blocks: list[Json], path: str) -> Json:
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Json] = []
        for at, block in enumerate(blocks):
            match block.get("type"):
                case "text":
                    texts.append(self._text(block, f"{path}.content.{at}"))
                case "tool_use":
                    self._note(block)
                    calls.append(_call(block, f"{path}.content.{at}"))
                case "thinking":
                    thoughts.append(as_text(block.get("thinking")))
                case "redacted_thinking":
                    self._dropped.append("redacted_thinking")
                case kind:
                    raise refused(
                        f"{path}.content.{at}", f"a block of type `{kind}` cannot be carried to this provider"
                    )
        text = "".join(texts)
        message: Json = {"role": "assistant", "content": text if text or not calls else None}
        if thoughts and self._reasoning:
            message["reasoning_content"] = "".join(thoughts)
        elif thoughts:
            self._dropped.append("thinking")
        if calls:
            message["tool_calls"] = calls
        return message

    def _parts(self, block: Json, path: str) -> list[Json]:
        """A user's block as content parts; an empty text is none."""
        self._note(block)
        match block.get("type"):
            case "text":
                text = self._text(block, path)
                return [{"type": "text", "text": text}] if text else []
            case "image":
                url = _url(as_object(block.get("source")), f"{path}.source")
                return [{"type": "image_url", "image_url": {"url": url}}]
            case "document":
                return self._document(block, path)
            case "search_result":
                inner = enumerate(parts_in(block.get("content"), f"{path}.content"))
                texts = [self._text(each, f"{path}.content.{at}") for at, each in inner]
                head = [as_text(block.get("title")), as_text(block.get("source"))]
                return [{"type": "text", "text": "\n".join(filter(None, head + texts))}]
            case kind:
                raise refused(path, f"a block of type `{kind}` cannot be carried to this provider")

    def _document(self, block: Json, path: str) -> list[Json]:
        source = as_object(block.get("source"))
        title = as_text(block.get("title"))
        head = [title, as_text(block.get("context"))]
        match source.get("type"):
            case "text":
                text = "\n".join(filter(None, [*head, text_in(source, "data", f"{path}.source")]))
                return [{"type": "text", "text": text}]
            case "base64":
                file = {"filename": title or "document.pdf", "file_data": _url(source, f"{path}.source")}
                context: list[Json] = [{"type": "text", "text": head[1]}] if head[1] else []
                return [*context, {"type": "file", "file": file}]
            case "content":
                parts: list[Json] = [{"type": "text", "text": text} for text in head if text]
                for at, each in enumerate(parts_in(source.get("content"), f"{path}.source.content")):
                    parts += self._parts(each, f"{path}.source.content.{at}")
                return parts
            case kind:
                raise refused(f"{path}.source", f"a document by `{kind}` cannot be carried to this provider")

    def _text(self, block: Json, path: str) -> str:
        self._note(block)
        return text_in(block, "text", path)

    def _note(self, block: Json) -> None:
        """What a block of any type may carry besides its content."""
        if block.get("cache_control"):
            self._dropped.append("cache_control")
        citations: Any = block.get("citations")
        if as_list(citations) or as_object(citations).get("enabled"):
            self._dropped.append("citations")


def _merged(parts: list[Json]) -> list[Json]:
    """Neighbouring texts as one, set apart: some servers would join them without a space."""
    merged: list[Json] = []
    for part in parts:
        if part["type"] == "text" and merged and merged[-1]["type"] == "text":
            merged[-1] = {"type": "text", "text": f"{merged[-1]['text']}\n\n{part['text']}"}
        else:
            merged.append(part)
    return merged


def _call(block: Json, path: str) -> Json:
    given = block.get("input")
    if not isinstance(given, dict):
        raise refused(f"{path}.input", "an object is required")
    return tool_call(text_in(block, "id", path), text_in(block, "name", path), orjson.dumps(given).decode())


def _url(source: Json, path: str) -> str:
    """A data URI or the address. Raises: ProviderError for a file that lies at Anthropic."""
    match source.get("type"):
        case "base64":
            return f"data:{text_in(source, 'media_type', path)};base64,{text_in(source, 'data', path)}"
        case "url":
            return text_in(source, "url", path)
        case kind:
            raise refused(path, f"a source of type `{kind}` cannot be carried to this provider")
