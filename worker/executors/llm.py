"""The `llm` step: renders its prompt once, asks a model, and gives its text, or data where a `schema` is given.

One attempt asks each candidate of the model's name once, in order; trying again is the step's durable retry policy.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from engine.depth import MAX_DEPTH, is_too_deep
from engine.errors import UserError
from engine.expressions import render, render_text
from engine.json_schemas import violations
from engine.llm_keys import AGENT, LLM, NOT_EXTRA
from engine.messages import messages_mistake
from engine.plain_values import accepted
from engine.ports import Failed, Job, Outcome, Succeeded
from engine.states import ErrorClass
from engine.values import is_list
from providers.errors import ProviderError
from providers.failover import Completed, Failover
from providers.pricing import PriceBook
from providers.provider import Json
from providers.routing import Candidate, Route, Router
from providers.usage import estimate_prompt_tokens
from providers.walk import FailoverPolicy
from providers.wording import Request

DEFAULT_MAX_TOKENS = 4096
MAX_IMAGES_SIZE = 16 * 1024 * 1024  # characters of all pictures of a call
LEAST_TOKENS = 256  # fewer than this are no answer worth paying for
_OF_AGENTS = AGENT.keys.keys() - LLM.keys.keys()
_NO_PARAMETERS = {"prompt", "messages", "system", "schema", "images", "extra", *_OF_AGENTS}
_LONG = 65_536  # characters of an answer; checking them takes some 20 ms
_TOO_DEEP = f"it is nested too deeply: {MAX_DEPTH} levels are the limit"
_ONE_PASS = FailoverPolicy(retries_per_target=0)


@dataclass(frozen=True, slots=True)
class LlmExecutor:
    """engine.ports.StepExecutor for `llm`."""

    router: Router
    failover: Failover
    prices: PriceBook

    async def execute(self, job: Job) -> Outcome:
        """Raises: BudgetExceeded, and what rendering raises."""
        body = request_body(job.step.fields, job.scope)
        try:
            route = await self.router.resolve(body["model"])
            affordable = self.affordable_tokens(route, body, await job.book.remaining_picousd())
            if (
                affordable is not None
            ):  # where nothing fits the book refuses the call: it knows which limit, and when it resets
                body["max_tokens"] = min(body["max_tokens"], affordable or LEAST_TOKENS)
            return await self._ask(job, route, body)
        except ProviderError as error:
            return Failed(error.error_class, error.message, error.retry_after_s)

    async def _ask(self, job: Job, route: Route, body: Json) -> Outcome:
        done = await self.complete(job, route, body)
        schema = job.step.fields.get("schema")
        if schema is None:
            return Succeeded(text_of_answer(done), model=f"{done.provider}/{done.model}")
        value, mistake = await checked_answer(done, schema)
        if mistake is not None:
            done = await self.complete(job, route, repair(body, text_of_answer(done), mistake))
            value, mistake = await checked_answer(done, schema)
        if mistake is not None:
            return Failed(ErrorClass.INVALID_OUTPUT, f"the answer does not follow the schema: {mistake}")
        return Succeeded(value, model=f"{done.provider}/{done.model}")

    async def complete(self, job: Job, route: Route, request: Json | Request) -> Completed:
        """One whole answer, each candidate asked once. Raises: ProviderError, BudgetExceeded."""
        return await self.failover.complete(route, request, scope=job.call_scope, book=job.book, policy=_ONE_PASS)

    def affordable_tokens(self, route: Route, body: Json, remaining: int | None) -> int | None:
        """How many output tokens every candidate can give that what remains (pico-dollars) does not rule out.

        None: no limit; 0: it rules out all. A candidate with room for less than an answer is ruled out: it would be refused
        before the call, and the next one asked.
        """
        if remaining is None:
            return None
        prompt_tokens, least = estimate_prompt_tokens(body), min(LEAST_TOKENS, body["max_tokens"])
        limits = [self._fitting(candidate, prompt_tokens, remaining) for candidate in route.candidates]
        fitting = [limit for limit in limits if limit is not None and limit >= least]
        if fitting:
            return min(fitting)
        return None if None in limits else 0

    def _fitting(self, candidate: Candidate, prompt_tokens: int, remaining: int) -> int | None:
        """The output tokens of one candidate that fit; None where they cost nothing, or nobody knows what."""
        config = candidate.provider.config
        base = self.prices.worst_case(config, candidate.model, prompt_tokens, 0)
        full = self.prices.worst_case(config, candidate.model, prompt_tokens, 1000)
        if base is None or full is None or full <= base:
            return None
        return max(0, remaining - base) * 1000 // (full - base)


def request_body(fields: Mapping[str, Any], scope: Mapping[str, Any]) -> Json:
    """The OpenAI chat body of a step, rendered. Raises: ExpressionError; UserError for a value that its key does not take."""
    given = {name: render(value, scope) for name, value in fields.items() if name not in _NO_PARAMETERS}
    body: Json = {**_extra(fields, scope), **accepted(LLM.keys, fields, given)}
    body["messages"] = _messages(fields, scope)
    body.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    if "schema" in fields:
        body["response_format"] = answer_format(fields["schema"])
    return body


def answer_format(schema: Mapping[str, Any]) -> Json:
    """What asks for an answer that follows the schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": False}}


def _messages(fields: Mapping[str, Any], scope: Mapping[str, Any]) -> list[Json]:
    messages: list[Json] = []
    if "system" in fields:
        messages.append({"role": "system", "content": render_text(fields["system"], scope)})
    if "prompt" in fields:
        messages.append({"role": "user", "content": _content(fields, scope)})
    if "messages" not in fields:
        return messages
    given: Any = render(fields["messages"], scope, blocks=is_list(fields["messages"]))
    mistake = messages_mistake(fields["messages"], given)
    if mistake is not None:
        raise UserError("invalid_value", mistake)
    return messages + [dict(message) for message in given]


def _extra(fields: Mapping[str, Any], scope: Mapping[str, Any]) -> Json:
    """Other fields of the body. What the step has keys for is not among them, nor how the answer comes."""
    given: Json = accepted(LLM.keys, fields, {"extra": render(fields.get("extra"), scope)}).get("extra", {})
    taken = sorted(NOT_EXTRA & set(given))
    if taken:
        raise UserError("invalid_value", f"extra cannot hold {', '.join(taken)}")
    return given


def _content(fields: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
    """The prompt, with its pictures where it has any."""
    prompt = render_text(fields["prompt"], scope)
    if "images" not in fields:
        return prompt
    rendered = {"images": render(fields["images"], scope, limit=MAX_IMAGES_SIZE)}
    given: Any = accepted(LLM.keys, fields, rendered).get("images", [])
    urls: Sequence[Any] = given if is_list(given) else [given]
    return [{"type": "text", "text": prompt}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]


def text_of_answer(done: Completed) -> str:
    """What the model said."""
    return done.answer.body["choices"][0]["message"].get("content") or ""


async def checked_answer(done: Completed, schema: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The same of an answer; a long one is read beside the event loop, which other steps wait for."""
    text = text_of_answer(done)
    return await asyncio.to_thread(checked, text, schema) if len(text) > _LONG else checked(text, schema)


def checked(text: str, schema: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The answer as data, and its first mistake."""
    try:
        value = json.loads(_unfenced(text), parse_constant=_refuse_constant)
        json.dumps(
            value, ensure_ascii=False, allow_nan=False
        ).encode()  # no infinite number, no half of a surrogate pair
    except RecursionError:
        return None, _TOO_DEEP
    except ValueError as error:
        return None, f"it is no JSON ({error})"
    if is_too_deep(value):
        return None, _TOO_DEEP
    found = violations(schema, value)
    return (None, f"${found[0][0]}: {found[0][1]}") if found else (value, None)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _unfenced(text: str) -> str:
    """Models like to wrap JSON in a Markdown fence."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```"):
        return stripped.strip("`").removeprefix("json").strip()
    return stripped


def repair(body: Json, answer: str, mistake: str) -> Json:
    """The request that asks for a corrected answer."""
    complaint = f"That does not follow the schema: {mistake}. Answer again with the corrected JSON alone."
    added = [{"role": "assistant", "content": answer}, {"role": "user", "content": complaint}]
    return {**body, "messages": [*body["messages"], *added]}
