"""In which order a route's candidates are asked: its strategy, for this request. Who rests is moved back later (`providers.health`).

ordered: as written. weighted: by chance, each with the share of its weight; those that were not drawn follow, drawn the same way.
least_latency: the fastest lately. least_busy: the fewest calls of this process under way. cheapest: the lowest worst case of
this request; free ones first, unknown prices last. Equals keep the order in which they are written. A target that is itself a
configured name keeps its own strategy inside and counts as the one it would ask first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from providers.observed import Observations
from providers.pricing import PriceBook
from providers.routing import Candidate, Group, Route

Line = list[Candidate]
_UNKNOWN = float("inf")


@dataclass(frozen=True, slots=True)
class Size:
    """What of a request decides: its tokens in, at most out, and whether its answer is streamed."""

    prompt_tokens: int
    output_limit: int
    streamed: bool


@dataclass(frozen=True, slots=True)
class Chooser:
    """One for a process. `chance` gives numbers in [0, 1)."""

    prices: PriceBook
    observed: Observations
    chance: Callable[[], float]

    def line(self, route: Route, size: Callable[[], Size]) -> Line:
        """All candidates of a route in the order in which to ask them. `size` is called only where it decides."""
        if route.group is None or len(route.candidates) == 1:
            return list(route.candidates)
        return list(dict.fromkeys(self._group(route.group, size)))

    def _group(self, group: Group, size: Callable[[], Size]) -> Line:
        lines = [self._group(member, size) if isinstance(member, Group) else [member] for member in group.members]
        return [candidate for line in self._sorted(group, lines, size) for candidate in line]

    def _sorted(self, group: Group, lines: list[Line], size: Callable[[], Size]) -> list[Line]:
        match group.strategy:
            case "weighted":
                return self._drawn(lines, group.weights)
            case "least_latency":
                return self._fastest(lines, streamed=size().streamed)
            case "least_busy":
                return sorted(lines, key=lambda line: self.observed.in_flight(line[0].key))
            case "cheapest":
                return sorted(lines, key=lambda line: self._worst_case(line[0], size()))
            case _:
                return lines

    def _drawn(self, lines: Sequence[Line], weights: Sequence[float]) -> list[Line]:
        left = list(zip(lines, weights, strict=True))
        drawn: list[Line] = []
        while left:
            point = self.chance() * sum(weight for _, weight in left)
            at = 0
            while at < len(left) - 1 and point >= left[at][1]:
                point -= left[at][1]
                at += 1
            drawn.append(left.pop(at)[0])
        return drawn

    def _fastest(self, lines: list[Line], *, streamed: bool) -> list[Line]:
        def seconds(line: Line) -> tuple[float, int]:
            key = line[0].key
            known = self.observed.seconds(key, streamed=streamed)
            return _UNKNOWN if known is None else known, self.observed.in_flight(key)

        ranked = sorted(lines, key=seconds)
        tried = next((line for line in ranked if self.observed.explore(line[0].key, streamed=streamed)), None)
        return ranked if tried is None else [tried, *(line for line in ranked if line is not tried)]

    def _worst_case(self, candidate: Candidate, size: Size) -> float:
        cost = self.prices.worst_case(candidate.provider.config, candidate.model, size.prompt_tokens, size.output_limit)
        return _UNKNOWN if cost is None else cost
