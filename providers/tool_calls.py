"""Tool calls as clients and the other dialects need them: every piece numbered, every call with an id and a type, arguments as text.

Servers that speak OpenAI's dialect nearly leave some of it out: Gemini gives several calls one index, others no index or no id,
some say id and name again with every piece (which OpenAI's client would join), or send arguments as an object. What is in
order is left as it came. Format: OpenAI's `tool_calls`, whole and as deltas.
"""

import orjson

from providers.completions import new_call_id
from providers.provider import Json
from providers.shapes import as_count, as_object, as_objects, as_text


class CallPieces:
    """Puts the pieces of the tool calls of one streamed choice in order, as they come."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}  # the call that the upstream means now by an index of its own
        self._begun: set[int] = set()
        self._last = 0

    def settle(self, pieces: list[Json]) -> None:
        """Change `pieces` where they need it."""
        for piece in pieces:
            identity, index = as_text(piece.get("id")), as_count(piece.get("index"))
            number = self._number(piece, identity, index)
            if number in self._begun:
                piece.pop("id", None)
                _function(piece).pop("name", None)
            else:
                _complete(piece)
                self._begun.add(number)
                self._by_id[as_text(piece.get("id"))] = number
            piece["index"] = self._last = number
            if index is not None:
                self._by_index[index] = number
            _as_text(piece)

    def _number(self, piece: Json, identity: str, index: int | None) -> int:
        """Which call a piece belongs to: a name with an id that is not known begins one, and so does one without any index."""
        if identity in self._by_id:
            return self._by_id[identity]
        named = bool(_function(piece).get("name"))
        if index is None:
            return self._free(0) if named or identity or not self._begun else self._last
        known = self._by_index.get(index)
        if known is None or (named and identity):
            return self._free(index)
        return known

    def _free(self, wanted: int) -> int:
        """`wanted`, or the next number that no call has."""
        return wanted if wanted not in self._begun else max(self._begun) + 1


def settle_calls(message: Json) -> None:
    """The same for the calls of a whole message."""
    for call in as_objects(message.get("tool_calls")):
        _complete(call)
        _as_text(call)


def _complete(call: Json) -> None:
    if not as_text(call.get("id")):
        call["id"] = new_call_id()
    if not call.get("type"):
        call["type"] = "custom" if "custom" in call else "function"


def _as_text(call: Json) -> None:
    function = as_object(call.get("function"))
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        function["arguments"] = orjson.dumps(arguments).decode()


def _function(call: Json) -> Json:
    return as_object(call.get("function")) or as_object(call.get("custom"))
