"""What a model can take: how long a context, tools, images. From the configuration, a context also from genai-prices' tables.

What is not known is taken for able: the upstream judges.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from providers.pricing import listed_model
from providers.provider import Json
from providers.routing import Candidate
from providers.shapes import as_list, as_object, as_objects

_REMEMBERED = 512
_IMAGES = frozenset({"image_url", "input_image", "image"})  # OpenAI's two, Anthropic's


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request needs. `tokens` is its prompt and the output it asks for."""

    tokens: int
    tools: bool
    images: bool


class Abilities:
    """Looks them up; those of the tables are remembered in a bounded number."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str], int | None] = OrderedDict()

    def able(self, candidates: Sequence[Candidate], needs: Needs) -> list[Candidate]:
        """Those that can take it, in their order; all of them where none can: their answer says why not."""
        return [candidate for candidate in candidates if self._can(candidate, needs)] or list(candidates)

    def larger(self, candidates: Sequence[Candidate], than: Candidate) -> list[Candidate]:
        """Those that may take what was too long for `than`: whose context is larger, or not known."""
        limit = self.context_length(than)
        if limit is None:
            return list(candidates)
        lengths = ((candidate, self.context_length(candidate)) for candidate in candidates)
        return [candidate for candidate, length in lengths if length is None or length > limit]

    def context_length(self, candidate: Candidate) -> int | None:
        """In tokens; None where it is not known."""
        config, model = candidate.provider.config, candidate.model
        told = config.abilities.get(model)
        if told is not None and told.context_length is not None:
            return told.context_length
        if config.type in ("simulated", "ollama"):
            return None
        key = (config.type, config.url, model)
        if key not in self._known:
            found = listed_model(config, model)
            self._known[key] = found.context_window if found else None
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key]

    def _can(self, candidate: Candidate, needs: Needs) -> bool:
        told = candidate.provider.config.abilities.get(candidate.model)
        if told is not None and ((needs.tools and told.tools is False) or (needs.images and told.images is False)):
            return False
        length = self.context_length(candidate)
        return length is None or needs.tokens <= length


def has_tools(body: Json) -> bool:
    """Whether a request of any dialect offers tools."""
    return bool(body.get("tools") or body.get("functions"))


def has_images(body: Json) -> bool:
    """Whether a request of any dialect shows pictures, those in tool results included."""
    turns = as_objects(body.get("messages")) or as_objects(body.get("input"))
    return any(_shows(turn.get("content")) for turn in turns)


def _shows(content: Any) -> bool:
    parts = (as_object(part) for part in as_list(content))
    return any(part.get("type") in _IMAGES or _shows(part.get("content")) for part in parts)
