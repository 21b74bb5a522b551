"""The `input` of a Responses request as OpenAI chat messages.

Neighbouring items of the assistant (reasoning, text, calls) are one message there. A picture that a function gave goes into a
user message after the results, since a `tool` message holds text alone. Formats: as in `responses_in`.
"""

from typing import Any

from providers.completions import tool_call
from providers.provider import Json
from providers.shapes import as_object, as_text
from providers.translate.reasoning_seal import unsealed
from providers.translate.refusals import parts_in, refused, text_in


class Items:
    """Converts one request's input. What is lost on the way is added to `dropped`."""

    def __init__(self, dropped: list[str]) -> None:
        self._dropped = dropped
        self._messages: list[Json] = []
        self._answer: Json = {}  # what the assistant said, until something else follows
        self._attachments: list[Json] = []  # of function results, until something else follows

    def messages(self, body: Json) -> list[Json]:
        """All messages, the instructions first. Raises: ProviderError(invalid_request)."""
        if instructions := as_text(body.get("instructions")):
            self._messages.append({"role": "system", "content": instructions})
        given: Any = body.get("input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else parts_in(given, "input")
        for at, item in enumerate(items):
            self._item(item, f"input[{at}]")
        self._settle()
        return self._messages

    def _item(self, item: Json, path: str) -> None:
        match item.get("type") or "message":
            case "message" if item.get("role") == "assistant":
                self._attach()
                if item.get("phase"):
                    self._dropped.append("input.phase")
                self._say(self._texts(item, "content", path))
            case "message":
                self._settle()
                self._message(item, path)
            case "reasoning":
                self._attach()
                self._think(item, path)
            case "function_call":
                self._attach()
                call = tool_call(*(text_in(item, key, path) for key in ("call_id", "name", "arguments")))
                self._answer.setdefault("tool_calls", []).append(call)
            case "custom_tool_call":
                self._attach()
                identity, name, given = (text_in(item, key, path) for key in ("call_id", "name", "input"))
                call = {"id": identity, "type": "custom", "custom": {"name": name, "input": given}}
                self._answer.setdefault("tool_calls", []).append(call)
            case "function_call_output" | "custom_tool_call_output":
                self._flush()
                self._result(item, path)
            case kind:
                raise refused(path, f"an item of type `{kind}` is not known here")

    def _message(self, item: Json, path: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role in ("system", "developer"):
            self._messages.append({"role": "system", "content": self._texts(item, "content", path)})
        elif role == "user":
            parts = self._parts(content, f"{path}.content")
            plain = len(parts) == 1 and parts[0]["type"] == "text"
            self._messages.append({"role": "user", "content": parts[0]["text"] if plain else parts})
        else:
            raise refused(f"{path}.role", f"there is no role `{role}`")

    def _say(self, text: str) -> None:
        said = as_text(self._answer.get("content"))
        self._answer["content"] = f"{said}\n{text}" if said else text

    def _think(self, item: Json, path: str) -> None:
        thoughts = self._texts(item, "content", path) or self._texts(item, "summary", path)
        if thoughts:
            self._answer["reasoning_content"] = as_text(self._answer.get("reasoning_content")) + thoughts
        if blocks := unsealed(item.get("encrypted_content")):
            self._answer.setdefault("thinking_blocks", []).extend(blocks)
        elif not thoughts:
            self._dropped.append("input.reasoning")

    def _result(self, item: Json, path: str) -> None:
        parts = self._parts(item.get("output"), f"{path}.output")
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        identity = text_in(item, "call_id", path)
        self._messages.append({"role": "tool", "tool_call_id": identity, "content": text})
        others = [part for part in parts if part["type"] != "text"]
        if others:
            self._attachments += [{"type": "text", "text": f"Attachments of the tool result {identity}:"}, *others]

    def _parts(self, content: Any, path: str) -> list[Json]:
        return [self._part(part, f"{path}[{at}]") for at, part in enumerate(parts_in(content, path))]

    def _part(self, part: Json, path: str) -> Json:
        match part.get("type"):
            case "input_text" | "output_text" | "text":
                return {"type": "text", "text": text_in(part, "text", path)}
            case "input_image" if part.get("image_url"):
                image: Json = {"url": text_in(part, "image_url", path)}
                if part.get("detail"):
                    image["detail"] = part["detail"]
                return {"type": "image_url", "image_url": image}
            case "input_file" if part.get("file_data"):
                file = {key: part[key] for key in ("filename", "file_data") if part.get(key)}
                return {"type": "file", "file": file}
            case "input_audio":
                return {"type": "input_audio", "input_audio": as_object(part.get("input_audio"))}
            case "input_image" | "input_file":
                raise refused(path, "no file is kept or fetched here; send it as data")
            case kind:
                raise refused(path, f"a part of type `{kind}` is not known here")

    def _texts(self, item: Json, key: str, path: str) -> str:
        """The text of what can be nothing else: a string, or its parts joined; a refusal is what was said."""
        told: list[str] = []
        for at, part in enumerate(parts_in(item.get(key), f"{path}.{key}")):
            where = f"{path}.{key}[{at}]"
            told.append(text_in(part, "refusal" if part.get("type") == "refusal" else "text", where))
        return "\n".join(told)

    def _flush(self) -> None:
        """What the assistant said is complete."""
        if self._answer:
            content = self._answer.get("content")
            calls = self._answer.get("tool_calls")
            self._messages.append({"role": "assistant", **self._answer, "content": content if content or calls else ""})
            self._answer = {}

    def _attach(self) -> None:
        """The function results are complete."""
        if self._attachments:
            self._messages.append({"role": "user", "content": self._attachments})
            self._attachments = []

    def _settle(self) -> None:
        self._flush()
        self._attach()
