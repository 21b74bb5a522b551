"""A request that came in another dialect than chat, and how it is put to each type of provider.

To a provider of its own dialect it goes as it came (`native`): only what must be read is parsed, unknown keys and their order
are kept, and the answer comes back in that dialect too. Every other type gets it as OpenAI chat, the language in the middle.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from providers.provider import Answer, Chunk, Json, Provider, ProviderType


@dataclass(frozen=True, slots=True)
class Wording:
    """A request as one type of provider takes it. `dropped` names what that type has no word for.

    `native`: the body is in the provider's own dialect; `headers` go along with it.
    """

    body: Json
    dropped: tuple[str, ...] = ()
    native: bool = False
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Request:
    """A request in the client's dialect. Sizes and limits are read from `body`.

    `word` is called when a candidate's turn has come, once for each type. It raises ProviderError(invalid_request) for content
    that this type cannot be given.
    """

    body: Json
    word: Callable[[ProviderType], Wording]


@runtime_checkable
class NativeProvider(Provider, Protocol):
    """A provider that takes native wordings. Like all of Provider's, its methods raise ProviderError and nothing else."""

    async def answer_native(self, model: str, wording: Wording) -> Answer:
        """One call, one whole answer with `native` set."""
        ...

    def stream_native(self, model: str, wording: Wording) -> AsyncGenerator[Chunk, None]:
        """One call, a chunk for each event of the dialect; the one that ends the answer comes last, as `usage_only`."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """A provider that counts the tokens of a prompt, free of charge. Raises ProviderError."""

    async def count_tokens(self, model: str, wording: Wording) -> int:
        """The input tokens of a native wording."""
        ...
