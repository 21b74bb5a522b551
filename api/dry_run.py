"""What a run would send and cost, before any of it is sent: prompts as far as they are known, models, a range of money.

The lower end: every call answers with a single token, and what is not known is empty. The upper end: every answer is as long as
`max_tokens` allows, from the dearest of a step's targets. Retries are in neither. Nothing is stored and no model is asked.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from api.services import Services
from engine.agent_steps import AGENT, max_turns
from engine.definition import Definition, Step
from engine.dry_run import ASSUMED_ITEMS, MOST_ITEMS, foresee
from engine.errors import AIGatewayError
from engine.foreseen import Foreseen
from engine.inputs import check_inputs
from engine.money import to_picousd, to_usd
from engine.values import is_list
from providers.routing import Candidate
from providers.usage import estimate_prompt_tokens

DEFAULT_MAX_TOKENS = 4096  # of an llm step (contract §4)
ASSUMED_RESULT_TOKENS = 4_000  # of a tool, a request or another workflow; of all that an agent calls in one turn
_INDEX_TOKENS = 6  # the largest number of an item
_ASKS = ("llm", AGENT)
_CALLS = ("mcp_tool", "http", "workflow", "wait")


@dataclass(frozen=True, slots=True)
class _Range:
    """Pico-dollars; None where a price is not known."""

    low: int | None
    high: int | None

    def plus(self, other: "_Range") -> "_Range":
        """The sum, in which an unknown price counts for nothing: `cost_unknown_steps` says that there is one."""
        return _Range((self.low or 0) + (other.low or 0), (self.high or 0) + (other.high or 0))

    def view(self) -> dict[str, float] | None:
        if self.low is None or self.high is None:
            return None
        return {"low": to_usd(self.low), "high": to_usd(self.high)}


def _sum(costs: Iterable[_Range]) -> _Range:
    """All of them together; not known where one is not."""
    low, high = 0, 0
    for cost in costs:
        if cost.low is None or cost.high is None:
            return _Range(None, None)
        low, high = low + cost.low, high + cost.high
    return _Range(low, high)


class _Estimate:
    """What questions to models cost. `sizes` are the tokens that the results of steps have at most, by path."""

    def __init__(self, services: Services, sizes: Mapping[str, int]) -> None:
        self._services = services
        self._sizes = sizes
        self._routes: dict[str, tuple[tuple[Candidate, ...], str | None]] = {}

    async def candidates(self, model: object) -> tuple[tuple[Candidate, ...], str | None]:
        """A model's targets, or why there are none; neither where its name is not known yet."""
        if not isinstance(model, str) or "${" in model:
            return (), None
        if model not in self._routes:
            try:
                self._routes[model] = (await self._services.router.resolve(model)).candidates, None
            except AIGatewayError as error:
                self._routes[model] = (), error.message
        return self._routes[model]

    def prompt(self, case: Foreseen) -> tuple[int, int]:
        """Tokens of the prompt, at least and at most."""
        counted = estimate_prompt_tokens(_body(case.fields))
        unknown = sum(self._sizes.get(path, ASSUMED_RESULT_TOKENS) for path in case.unknown)
        return counted // 2, counted * 3 // 2 + unknown

    async def cost(self, case: Foreseen) -> _Range:
        """Of one case, for all its times."""
        candidates, _ = await self.candidates(case.fields["model"])
        (prompt, most), limit = self.prompt(case), _max_tokens(case.fields)
        turns = max_turns(case.step) if case.step.type == AGENT else 1
        most += (limit + ASSUMED_RESULT_TOKENS) * (turns - 1)
        prices = self._services.prices
        lows = [prices.worst_case(one.provider.config, one.model, prompt, 1) for one in candidates]
        highs = [prices.worst_case(one.provider.config, one.model, most, limit) for one in candidates]
        known_lows = [low for low in lows if low is not None]
        known_highs = [high for high in highs if high is not None]
        if not candidates or len(known_highs) < len(highs):
            return _Range(None, None)
        high = max(known_highs) * turns
        cap = case.fields.get("max_cost_usd")
        if cap is not None:
            high = min(high, to_picousd(Decimal(repr(cap))))
        return _Range(min(min(known_lows), high) * case.times.low, high * case.times.high)


async def dry_run(services: Services, definition: Definition, value: Any, budget_picousd: int | None) -> dict[str, Any]:
    """The answer to a dry run. Raises: UserError for a wrong input."""
    checked = check_inputs(definition, value)
    foreseen = await asyncio.to_thread(foresee, definition, checked)
    sizes = {entry.step.path: _result_tokens(entry) for entry in foreseen} | {"index": _INDEX_TOKENS}
    steps: list[dict[str, Any]] = []
    total, unknown = _Range(0, 0), 0
    estimate = _Estimate(services, sizes)
    for entry in foreseen:
        view, cost = await _step(estimate, entry)
        steps.append(view)
        total = total.plus(cost)
        unknown += cost.high is None
    budget = definition.budget_picousd if budget_picousd is None else budget_picousd
    return {
        "dry_run": True,
        "workflow": definition.name,
        "input": checked,
        "steps": steps,
        "cost_usd": total.view(),
        "cost_unknown_steps": unknown,
        "budget_usd": None if budget is None else to_usd(budget),
        "within_budget": None if budget is None else (total.high or 0) <= budget and not unknown,
        "assumptions": list(_assumptions(foreseen)),
    }


async def _step(estimate: _Estimate, entry: Foreseen) -> tuple[dict[str, Any], _Range]:
    step = entry.step
    view: dict[str, Any] = {
        "id": step.path,
        "type": step.type,
        "times": {"low": entry.times.low, "high": entry.times.high},
        "unknown": sorted(entry.unknown),
        "mistake": entry.mistake,
    }
    if step.type not in _ASKS:
        return view | _told(entry), _Range(0, 0)
    body, limit = _body(entry.fields), _max_tokens(entry.fields)
    candidates, problem = await estimate.candidates(entry.fields["model"])
    running = [case for case in entry.cases if case.times.high]
    cost = _sum([await estimate.cost(case) for case in running])
    prompts = [estimate.prompt(case) for case in running or [entry]]
    return {
        **view,
        "mistake": entry.mistake or problem,
        "model": entry.fields["model"],
        "targets": [f"{one.provider.config.name}/{one.model}" for one in candidates],
        "messages": body["messages"],
        "prompt_tokens": {"low": min(low for low, _ in prompts), "high": max(high for _, high in prompts)},
        "max_tokens": limit,
        "cost_usd": cost.view(),
    }, cost


def _told(entry: Foreseen) -> dict[str, Any]:
    """What a step that asks no model would send."""
    names = (
        "server",
        "tool",
        "params",
        "url",
        "method",
        "headers",
        "json",
        "body",
        "workflow",
        "input",
        "signal",
        "value",
    )
    return {name: entry.fields[name] for name in names if name in entry.fields}


def _body(fields: Mapping[str, Any]) -> dict[str, Any]:
    messages: list[Any] = []
    if "system" in fields:
        messages.append({"role": "system", "content": fields["system"]})
    if "prompt" in fields:
        messages.append({"role": "user", "content": _content(fields)})
    told = fields.get("messages", [])
    messages += told if isinstance(told, list) else [{"role": "user", "content": told}]  # an expression not known yet
    schema = fields.get("schema")
    return {"messages": messages, **({} if schema is None else {"response_format": schema})}


def _content(fields: Mapping[str, Any]) -> Any:
    given: Any = fields.get("images")
    if given is None:
        return fields["prompt"]
    urls: Sequence[Any] = given if is_list(given) else [given]
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"type": "text", "text": fields["prompt"]}, *pictures]


def _max_tokens(fields: Mapping[str, Any]) -> int:
    limit = fields.get("max_tokens", DEFAULT_MAX_TOKENS)
    return limit if isinstance(limit, int) else DEFAULT_MAX_TOKENS


def _result_tokens(entry: Foreseen) -> int:
    """About how many tokens a step's result has at most."""
    if entry.step.type in _ASKS:
        return _max_tokens(entry.fields)
    if entry.step.type in _CALLS:
        return ASSUMED_RESULT_TOKENS
    inner = [_longest(steps) for steps in entry.step.branches.values()]
    if entry.step.type == "foreach":
        items = [case.fields["items"] for case in entry.cases]
        return max(inner, default=0) * max(len(each) if is_list(each) else ASSUMED_ITEMS for each in items)
    if entry.step.type == "while":
        return max(inner, default=0) * (entry.step.fields["max_iterations"] if "collect" in entry.step.fields else 1)
    return sum(inner) if entry.step.type == "parallel" else max(inner, default=0)


def _longest(steps: Iterable[Step]) -> int:
    """Of a list of steps inside another, the last one's result, which is mostly what comes out."""
    last = list(steps)[-1:]
    return sum(_max_tokens(step.fields) if step.type in _ASKS else ASSUMED_RESULT_TOKENS for step in last)


def _assumptions(foreseen: list[Foreseen]) -> Iterable[str]:
    """What the range rests on, in sentences."""
    yield "a prompt has from half to one and a half times the tokens that its length suggests"
    yield "retries and repaired answers are not counted"
    if any(entry.unknown for entry in foreseen if entry.step.type in _ASKS):
        yield f"the result of a tool, a request or another workflow has at most {ASSUMED_RESULT_TOKENS} tokens"
    if any(entry.assumed for entry in foreseen):
        yield f"a list that is not known yet has at most {ASSUMED_ITEMS} items"
    if any(entry.sampled for entry in foreseen):
        yield f"of a list of more than {MOST_ITEMS} items, or with many steps for each, some items stand for all"
    if any(entry.step.type == AGENT for entry in foreseen):
        yield f"what an agent calls in one turn gives at most {ASSUMED_RESULT_TOKENS} tokens; its tools' descriptions are not counted"
    if any(entry.step.type == "workflow" for entry in foreseen):
        yield "what other workflows cost is not counted"
