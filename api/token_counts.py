"""`/v1/messages/count_tokens` and `/v1/responses/input_tokens`: a prompt's size, counted by an upstream that can, estimated for every other.

Plain ASGI. It costs nothing and is booked so; the key's models and limits hold all the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from api.anthropic_errors import shaped
from api.asgi import Receive, Scope, Send, read_json_object, send_json, send_problem, unless_disconnected
from api.call_headers import failed_headers
from api.errors import problem_of
from api.limit_headers import standing_headers
from api.services import ChatBook, Services
from engine.clock import new_id, now_us
from engine.errors import AIGatewayError
from engine.ledger import CallKind, CallScope, Intent
from providers.errors import ProviderError
from providers.provider import Json, ProviderType
from providers.routing import Candidate, Route
from providers.usage import estimate_prompt_tokens
from providers.wording import Request, TokenCounter

_NO_SUCH_ROUTE = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class Counting:
    """A checked question. `by`: the types of provider that its dialect can be counted by; `told` makes the answer of the number."""

    request: Request
    by: frozenset[ProviderType]
    told: Callable[[int], Json]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class CountTokensEndpoint:
    """The ASGI application of such a route. `begin` checks a body. Raises: HttpError, ProviderError."""

    services: Services
    begin: Callable[[Json, Scope], Counting]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            counting = self.begin(await read_json_object(receive), scope)
            book = ChatBook(self.services)
            counted = await unless_disconnected(self._count(counting, scope, book), receive, cancel=True)
            if counted is not None:
                tokens, source = counted
                told = {"x-aigateway-token-source": source, **counting.headers}
                await send_json(send, 200, counting.told(tokens), standing_headers(book.standings) | told)
        except AIGatewayError as error:
            problem = problem_of(error)
            problem.headers.update(failed_headers(error))
            await send_problem(send, shaped(problem, scope["path"], scope["state"]["request_id"]))

    async def _count(self, counting: Counting, scope: Scope, book: ChatBook) -> tuple[int, str]:
        """The tokens and who says so: `upstream` or `estimate`. Raises: ProviderError, and what the book raises."""
        state, body = scope["state"], counting.request.body
        route = await self.services.router.resolve(body["model"])
        call = CallScope(request_id=state["request_id"], key_id=state.get("key_id"), span=state.get("span"))
        able = tuple(candidate for candidate in route.candidates if _counts(candidate, counting.by))
        if able and able[0] == route.candidates[0]:
            try:
                done = await self.services.failover.count_tokens(
                    Route(route.requested, able), counting.request, scope=call, book=book
                )
                return done.answer.body["input_tokens"], "upstream"
            except ProviderError as error:
                if error.status not in _NO_SUCH_ROUTE or error.code == "model_not_found":
                    raise
        await book.check(_intent(route, call))
        return estimate_prompt_tokens(body), "estimate"


def _counts(candidate: Candidate, by: frozenset[ProviderType]) -> bool:
    return candidate.provider.config.type in by and isinstance(candidate.provider, TokenCounter)


def _intent(route: Route, scope: CallScope) -> Intent:
    """What the key is asked about where no upstream is."""
    first = route.candidates[0]
    return Intent(
        id=new_id(),
        scope=scope,
        kind=CallKind.COUNT_TOKENS,
        provider=first.provider.config.name,
        model=first.model,
        requested_model=route.requested,
        streamed=False,
        at_us=now_us(),
        reserve_picousd=0,
    )
