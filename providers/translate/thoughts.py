"""What a model thought in earlier turns of a conversation, and which type of provider takes it back under which name."""

from collections.abc import Mapping, Sequence

from providers.provider import Json, ProviderType

THOUGHT_KEYS = frozenset({"reasoning_content", "thinking_blocks"})
_TAKEN_AS: Mapping[ProviderType, str] = {  # where a type of provider looks for what was thought before
    "anthropic": "thinking_blocks",
    "ollama": "reasoning_content",
    "simulated": "reasoning_content",
}


def with_thoughts_for(target: ProviderType, messages: Sequence[Json]) -> tuple[list[Json], bool]:
    """The messages with the thoughts that the target takes and no others (OpenAI's own API refuses any), and whether some are lost."""
    kept = _TAKEN_AS.get(target)
    made: list[Json] = []
    lost = False
    for message in messages:
        unwanted = (THOUGHT_KEYS & message.keys()) - {kept}
        lost = lost or (bool(unwanted) and kept not in message)
        made.append({key: value for key, value in message.items() if key not in unwanted})
    return made, lost
