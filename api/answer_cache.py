"""The exact cache in front of upstreams: on for a model with `cache:` in the configuration, or by the header `x-aigateway-cache`.

The header's value: a duration such as `10m` looks up and keeps for that long; `refresh` asks anew and keeps; `no-store` does neither.
Chat and responses share an entry where they come to the same chat, streamed or not. `/v1/messages` keeps the answer as its dialect
tells it, so that nothing is lost, and a streamed one apart from a plain one.
"""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal

import orjson

from api.answers import Comment, Live, Source, Telling, Whole
from api.asgi import Scope
from api.services import Services
from engine.answer_cache import CachedAnswer, book_hit, recall_answer, remember_answer
from engine.clock import iso, new_id, now_us
from engine.durations import parse_duration
from engine.errors import RetryableError, UserError
from engine.ledger import CallKind, Intent, Usage
from engine.money import to_picousd, to_usd
from providers.provider import Chunk, Json
from providers.routing import Route
from providers.whole_answers import to_chunks, to_whole

HEADER = b"x-aigateway-cache"
_MISS = {"x-aigateway-cache": "miss"}
# Who asks and how the answer is told, not what is asked.
_NOT_ASKED = frozenset(
    {"model", "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key",
     "prompt_cache_retention", "store"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wish:
    """How long an answer may be used again, and whether an earlier one will do."""

    lifetime_s: float
    recalls: bool = True


def wish_of(route: Route, scope: Scope) -> Wish | None:
    """What the request's header, else the model's configuration, says; None: no cache. Raises: UserError."""
    told = next((value for name, value in scope["headers"] if name == HEADER), None)
    if told is None:
        return None if route.cache_s is None else Wish(route.cache_s)
    words = told.decode("latin-1").replace(",", " ").lower().split()
    durations = [word for word in words if word not in ("refresh", "no-store")]
    if "no-store" in words:
        return None
    if not words or len(durations) > 1:
        raise _unclear()
    try:
        lifetime_s = parse_duration(durations[0]) if durations else route.cache_s
    except ValueError:
        raise _unclear() from None
    if lifetime_s is None:
        raise UserError(
            "invalid_parameter",
            f"{_NAME}: `{route.requested}` has no cache of its own; say how long: refresh 10m",
            param=_NAME,
        )
    return Wish(lifetime_s, recalls="refresh" not in words)


_NAME = HEADER.decode()


def _unclear() -> UserError:
    return UserError("invalid_parameter", f"{_NAME} must be a duration such as 10m, refresh, or no-store", param=_NAME)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `dialect` tells the forms apart in which answers are kept: `chat` in one form, others as they were told."""

    dialect: str
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    streamed: bool = False

    def digest(self, route: Route, key_id: str | None) -> str:
        """Equal for requests of one caller that ask the same of the same models."""
        asked = {key: value for key, value in self.body.items() if key not in _NOT_ASKED and value is not None}
        models = sorted({"/".join(candidate.key) for candidate in route.candidates})
        told = [
            key_id,
            self.dialect,
            self.streamed and not self.alike,
            dict(self.headers),
            route.requested,
            models,
            asked,
        ]
        return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def alike(self) -> bool:
        """Whether a streamed and a plain answer are kept in one form."""
        return self.dialect == "chat"


async def through_cache(services: Services, wish: Wish, question: Question, live: Live) -> Source:
    """An earlier answer where there is one, booked; else the upstream's, to be kept. Raises: Forbidden, LimitExceeded."""
    digest = question.digest(live.route, live.scope.key_id)
    if wish.recalls:
        entry = await services.database.read(lambda tx: recall_answer(tx, digest, now_us()))
        if entry is not None:
            intent = _intent(live, entry, streamed=question.streamed)
            refused = await services.database.write(
                lambda tx: book_hit(tx, intent, entry, services.process_id, now_us())
            )
            if refused is not None:
                raise refused
            return Hit(entry)
    return Remembering(replace(live, more_headers=_MISS), digest, wish.lifetime_s, question.alike)


def _intent(live: Live, entry: CachedAnswer, *, streamed: bool) -> Intent:
    return Intent(
        id=new_id(),
        scope=live.scope,
        kind=CallKind.CHAT,
        provider=entry.provider,
        model=entry.model,
        requested_model=live.route.requested,
        streamed=streamed,
        at_us=now_us(),
        reserve_picousd=0,
    )


@dataclass(frozen=True, slots=True)
class Hit:
    """An earlier answer. What it used then is told again; it costs nothing now."""

    entry: CachedAnswer

    @property
    def cancelled_with_client(self) -> bool:
        """There is nothing to go on with."""
        return True

    @property
    def usage(self) -> Usage | None:
        """What was used then."""
        told = self.entry.answer["usage"]
        return None if told is None else Usage(**told)

    @property
    def headers(self) -> Mapping[str, str]:
        """Where the answer once came from, and what it costs."""
        return {
            "x-aigateway-cache": "hit",
            "x-aigateway-cost-usd": "0",
            "x-aigateway-provider": self.entry.provider,
            "x-aigateway-model": self.entry.model,
            "x-aigateway-attempts": "0",
        }

    @property
    def summary(self) -> Json:
        """The `aigateway` object."""
        saved = self.entry.cost_picousd
        return {
            "cost_usd": 0.0,
            "cost_source": "cached",
            "saved_usd": None if saved is None else to_usd(saved),
            "cached_at": iso(self.entry.created_us),
            "latency_ms": 0.0,
            "provider": self.entry.provider,
            "model": self.entry.model,
            "attempts": [],
        }

    async def whole(self) -> Whole:
        """The answer."""
        answer = self.entry.answer
        return Whole(answer["body"], self.entry.model, self.usage, self.summary, self.headers, native=answer["native"])

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Telling, None]:
        """The answer in chunks."""
        yield self

    async def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        answer = self.entry.answer
        if "body" in answer:
            for chunk in to_chunks(answer["body"]):
                yield chunk
            return
        for told in answer["chunks"]:
            prompt_usage = told.pop("prompt_usage")
            yield Chunk(**told, prompt_usage=None if prompt_usage is None else Usage(**prompt_usage))


@dataclass(frozen=True, slots=True)
class Remembering:
    """An upstream's answer, kept once it is whole and before it is told to its end."""

    live: Live
    digest: str
    lifetime_s: float
    alike: bool

    @property
    def cancelled_with_client(self) -> bool:
        """As without a cache."""
        return self.live.cancelled_with_client

    async def whole(self) -> Whole:
        """Raises: as without a cache."""
        whole = await self.live.whole()
        await self._keep({"body": whole.body, "native": whole.native}, whole.usage, whole.summary)
        return whole

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Telling, None]:
        """Raises: as without a cache."""
        async with self.live.stream() as telling:
            yield _RememberedTelling(self, telling)

    async def keep_chunks(self, chunks: list[Chunk], telling: Telling) -> None:
        """Keep a stream that was told to its end."""
        if self.alike:
            answer: Json = {"body": to_whole(chunk.body for chunk in chunks), "native": False}
        else:
            answer = {"chunks": [_kept(chunk) for chunk in chunks]}
        await self._keep(answer, telling.usage, telling.summary)

    async def _keep(self, answer: Json, usage: Usage | None, summary: Json) -> None:
        answer["usage"] = None if usage is None else asdict(usage)
        told: float | None = summary["cost_usd"]
        cost = None if told is None else to_picousd(Decimal(repr(told)))
        now = now_us()
        entry = CachedAnswer(answer, summary["provider"], summary["model"], cost, now)
        database = self.live.services.database
        try:
            await database.write(lambda tx: remember_answer(tx, self.digest, entry, self.lifetime_s, now))
        except RetryableError:
            return  # the next one asks the upstream again


@dataclass(frozen=True, slots=True)
class _RememberedTelling:
    source: Remembering
    telling: Telling

    @property
    def headers(self) -> Mapping[str, str]:
        return self.telling.headers

    @property
    def usage(self) -> Usage | None:
        return self.telling.usage

    @property
    def summary(self) -> Json:
        return self.telling.summary

    async def __aiter__(self) -> AsyncGenerator[Chunk | Comment, None]:
        chunks: list[Chunk] = []
        async for part in self.telling:
            if isinstance(part, Chunk):
                chunks.append(part)
            yield part
        await self.source.keep_chunks(chunks, self.telling)


def _kept(chunk: Chunk) -> Json:
    usage = chunk.prompt_usage
    return {
        "body": chunk.body,
        "has_content": chunk.has_content,
        "finish_reason": chunk.finish_reason,
        "usage_only": chunk.usage_only,
        "native": chunk.native,
        "prompt_usage": None if usage is None else asdict(usage),
    }
