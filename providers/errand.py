"""One request on its way through candidates: what it asks for, how large it is, and the calls that were made for it."""

from dataclasses import dataclass, field
from functools import cached_property

from engine.ledger import Book, CallKind, CallScope
from providers.abilities import Needs, has_images, has_tools
from providers.pricing import DEFAULT_MAX_TOKENS
from providers.provider import AttemptInfo, Json, ProviderType
from providers.routing import Candidate, Route
from providers.shapes import LARGEST_COUNT, as_count
from providers.strategies import Size
from providers.usage import asks_for_an_hour, estimate_prompt_tokens
from providers.wording import Request, Wording

_LIMIT_KEYS = (
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
)  # OpenAI's, both, and that of `/v1/responses`


@dataclass
class Errand:
    """One request on its way through candidates. `attempts` grows as calls end."""

    route: Route
    request: Json | Request
    scope: CallScope
    book: Book
    kind: CallKind
    streamed: bool = False
    attempts: list[AttemptInfo] = field(default_factory=list[AttemptInfo])
    _wordings: dict[ProviderType, Wording] = field(default_factory=dict[ProviderType, Wording])

    @property
    def body(self) -> Json:
        """The request as its client wrote it."""
        return self.request.body if isinstance(self.request, Request) else self.request

    def worded(self, candidate: Candidate) -> Wording:
        """The request as this candidate takes it. Raises: ProviderError where it cannot be carried there."""
        kind = candidate.provider.config.type
        if kind not in self._wordings:
            request = self.request
            self._wordings[kind] = request.word(kind) if isinstance(request, Request) else Wording(request)
        return self._wordings[kind]

    @cached_property
    def prompt_tokens(self) -> int:
        """About how many input tokens the request has."""
        return estimate_prompt_tokens(self.body)

    @cached_property
    def asked_limit(self) -> int | None:
        """The most output tokens that one choice may have, where the request says so."""
        body = self.body
        return next(filter(None, (as_count(body[key]) for key in _LIMIT_KEYS if key in body)), None)

    @cached_property
    def output_limit(self) -> int:
        """The most output tokens that all its choices may have."""
        if self.kind is not CallKind.CHAT:
            return 0
        return min((self.asked_limit or DEFAULT_MAX_TOKENS) * self.choices, LARGEST_COUNT)

    @property
    def choices(self) -> int:
        """How many answers it asks for."""
        return max(1, as_count(self.body.get("n")) or 1)

    @cached_property
    def caches_for_an_hour(self) -> bool:
        """Whether it asks for cache writes that are kept for an hour."""
        return asks_for_an_hour(self.body)

    @property
    def size(self) -> Size:
        """What decides between candidates."""
        return Size(self.prompt_tokens, self.output_limit, self.streamed)

    @property
    def needs(self) -> Needs:
        """What a candidate has to be able to take."""
        tokens = self.prompt_tokens + (self.asked_limit or 0 if self.kind is CallKind.CHAT else 0)
        return Needs(tokens, has_tools(self.body), has_images(self.body))
