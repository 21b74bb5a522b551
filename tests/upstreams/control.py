"""What every strict upstream shares: counting calls, keeping them, the bill, and the script of things to go wrong.

Thread-safe: a test steers it from its own thread while the server's loop reads it.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

KEPT_CALLS = 5000


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one call. README.md lists the kinds."""

    kind: str
    status: int = 500
    message: str = "Scripted failure."
    type: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 2  # content chunks sent before a stream goes wrong
    delay_s: float = 0.0


KINDS = frozenset(
    {
        "status", "reset", "hang", "delay", "slow", "cut", "stall", "malformed", "no_done", "no_finish", "error_in_200",
        "error_in_stream", "not_json", "role_then_stall", "no_usage", "empty",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Price:
    """USD per million tokens, the bill that the upstream would send."""

    input: Decimal = Decimal(1)
    cached_input: Decimal = Decimal("0.1")
    cache_write: Decimal = Decimal("1.25")
    output: Decimal = Decimal(2)
    cache_write_1h: Decimal = Decimal(2)

    def picousd(self, tokens: "Tokens") -> int:
        usd_millions = (
            tokens.input * self.input
            + tokens.cache_read * self.cached_input
            + tokens.cache_write * self.cache_write
            + tokens.cache_write_1h * self.cache_write_1h
            + tokens.output * self.output
        )
        return int(usd_millions * 10**6)


@dataclass
class Tokens:
    """Disjoint: `input` is without the cached ones; `reasoning` is contained in `output`."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0  # Anthropic's alone tells it; the others count it as input


@dataclass
class Call:
    """One request as it came in and how it went."""

    number: int
    model: str
    marker: str | None
    stream: bool
    path: str
    headers: dict[str, str]
    body: Any
    status: int = 0
    outcome: str = "running"  # ok | refused | client_gone | the kind of fault
    fault: str | None = None
    tokens: Tokens = field(default_factory=Tokens)
    picousd: int = 0
    usage_told: bool = False


class Control:
    """The state of one upstream."""

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self._changed = threading.Condition()
        self._prices = dict(prices or {})
        self.reset()

    def reset(self) -> None:
        with self._changed:
            self._calls: deque[Call] = deque(maxlen=KEPT_CALLS)
            self._by_model: Counter[str] = Counter()
            self._by_marker: Counter[str] = Counter()
            self._total = 0
            self._bill = 0
            self._bill_told = 0
            self._script: deque[Fault | None] = deque()
            self._scripts: dict[str, deque[Fault | None]] = {}
            self._always: dict[str | None, Fault] = {}
            self._changed.notify_all()

    def script(self, *faults: Fault | None, model: str | None = None) -> None:
        """The next calls (of `model`, or any) go wrong like this, one entry a call; None lets one pass."""
        for fault in faults:
            _check(fault)
        with self._changed:
            (self._script if model is None else self._scripts.setdefault(model, deque())).extend(faults)

    def always(self, fault: Fault | None, model: str | None = None) -> None:
        """Every call without a scripted entry goes wrong like this, until None is given."""
        _check(fault)
        with self._changed:
            self._always.pop(model, None)
            if fault is not None:
                self._always[model] = fault

    def begin(self, call_of: Callable[[int], Call]) -> tuple[Call, Fault | None]:
        """Count a call and take its fault."""
        with self._changed:
            self._total += 1
            call = call_of(self._total)
            self._calls.append(call)
            self._by_model[call.model] += 1
            if call.marker:
                self._by_marker[call.marker] += 1
            own = self._scripts.get(call.model)
            queue = own if own else self._script
            fault = queue.popleft() if queue else self._always.get(call.model, self._always.get(None))
            call.fault = fault.kind if fault else None
            self._changed.notify_all()
            return call, fault

    def end(self, call: Call, outcome: str, status: int) -> None:
        """Book a call that is over. Only what was produced is billed."""
        with self._changed:
            call.outcome, call.status = outcome, status
            call.picousd = self.price(call.model).picousd(call.tokens)
            self._bill += call.picousd
            if call.usage_told:
                self._bill_told += call.picousd
            self._changed.notify_all()

    def price(self, model: str) -> Price:
        return self._prices.get(model) or self._prices.get("*") or Price()

    @property
    def calls(self) -> list[Call]:
        """The last calls, oldest first."""
        with self._changed:
            return list(self._calls)

    def count(self, *, model: str | None = None, marker: str | None = None) -> int:
        """How many calls there were: all, of a model, or with a marker."""
        with self._changed:
            if marker is not None:
                return self._by_marker[marker]
            return self._total if model is None else self._by_model[model]

    @property
    def bill_picousd(self) -> int:
        """All that was produced, in pico-dollars."""
        with self._changed:
            return self._bill

    @property
    def bill_told_picousd(self) -> int:
        """The part of the bill whose usage reached the client."""
        with self._changed:
            return self._bill_told

    def wait(self, condition: Callable[["Control"], bool], timeout_s: float = 10.0) -> None:
        """Return when `condition` holds; it is tried after every change. Raises: TimeoutError."""
        end = time.monotonic() + timeout_s
        while not condition(self):
            with self._changed:
                if not self._changed.wait(max(0.0, min(0.2, end - time.monotonic()))) and time.monotonic() >= end:
                    raise TimeoutError("the upstream never got there")

    def state(self) -> dict[str, Any]:
        """All of it as JSON data, for the control API."""
        with self._changed:
            return {
                "total": self._total,
                "by_model": dict(self._by_model),
                "by_marker": dict(self._by_marker),
                "running": sum(call.outcome == "running" for call in self._calls),
                "bill_picousd": self._bill,
                "bill_told_picousd": self._bill_told,
                "calls": [asdict(call) for call in self._calls],
            }


def _check(fault: Fault | None) -> None:
    if fault is not None and fault.kind not in KINDS:
        raise ValueError(f"no fault is called {fault.kind!r}; there are {', '.join(sorted(KINDS))}")
