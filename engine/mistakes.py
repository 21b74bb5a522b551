"""The mistakes of one definition: collected with their places, and drawn under the source line for a terminal."""

from collections.abc import Iterable, Sequence

from engine.constants import constant
from engine.errors import Mistake
from engine.syntax import Expression, Problem
from engine.yaml12 import Place

_WIDEST_LINE = 160


def describe(mistakes: Sequence[Mistake], text: str, origin: str, *, label: str = "") -> str:
    """For a terminal: `file:line:col: message (did you mean …?)`, then the source line and a caret, for each mistake.

    `label` stands in front of each message, as `warning: ` does.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    return "\n".join(_drawn(mistake, lines, origin, label) for mistake in mistakes)


def _drawn(mistake: Mistake, lines: Sequence[str], origin: str, label: str) -> str:
    where = "".join(f":{number}" for number in (mistake.line, mistake.column) if number is not None)
    by_step = (mistake.path or "").startswith("steps.")  # found once it was loaded: the step's whole path tells more
    place = f"{mistake.path}: " if mistake.path and (mistake.line is None or by_step) else ""
    told = mistake.suggestion is None or f"did you mean {mistake.suggestion}?" in mistake.message
    hint = "" if told else f" (did you mean {mistake.suggestion}?)"
    head = f"{origin}{where}: {label}{place}{mistake.message}{hint}"
    if mistake.line is None or mistake.column is None or not 0 < mistake.line <= len(lines):
        return head
    source = lines[mistake.line - 1]
    start = max(0, mistake.column - _WIDEST_LINE + 40)
    shown = "".join(mark if mark.isprintable() or mark == "\t" else "\ufffd" for mark in source[start:][:_WIDEST_LINE])
    indent = "".join("\t" if mark == "\t" else " " for mark in shown[: mistake.column - 1 - start])
    return f"{head}\n    {shown}\n    {indent}^"


class Findings:
    """Collects the mistakes of one definition; `source` is its text, empty where it came as data."""

    MOST = 200

    def __init__(self, source: str) -> None:
        self._source = source.removeprefix("\ufeff")
        self._found: dict[Mistake, None] = {}
        self._warnings: dict[Mistake, None] = {}
        self._reasons: dict[str, str | None] = {}

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        """What keeps nothing from running and is hardly meant, in the order of the text."""
        return _in_order(self._warnings)

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """What was found so far, in the order of the text."""
        return _in_order(self._found)

    @property
    def full(self) -> bool:
        """Whether no more are kept, so that looking for more is no use."""
        return len(self._found) >= self.MOST

    def take(self, mistakes: Iterable[Mistake]) -> None:
        """Adds mistakes that know their place."""
        for mistake in mistakes:
            if not self.full:
                self._found[mistake] = None

    def add(self, message: str, path: str, place: Place | None, suggestion: str | None = None) -> None:
        """Adds one; places are None throughout where the definition came as data."""
        line, column = (place.line, place.column) if place else (None, None)
        self.take([Mistake(message, path or None, line, column, suggestion)])

    def warn(self, message: str, path: str, place: Place | None, suggestion: str | None = None) -> None:
        """Adds a warning, as `add` does a mistake."""
        line, column = (place.line, place.column) if place else (None, None)
        if len(self._warnings) < self.MOST:
            self._warnings[Mistake(message, path or None, line, column, suggestion)] = None

    def add_problem(self, problem: Problem, path: str, place: Place | None) -> None:
        """Adds a mistake in an expression, at the expression's own place inside its text where that can be found."""
        self.add(f"{problem.message}: {shortened(problem.expression)}", path, self.within(problem.expression, place),
                 problem.suggestion)  # fmt: skip

    def reason(self, expression: Expression) -> str | None:
        """Why an expression can only fail. Each is tried once, however many aliases repeat it, and none once no more warnings are kept."""
        if len(self._warnings) >= self.MOST:
            return None
        if expression.text not in self._reasons:
            known = constant(expression)
            self._reasons[expression.text] = None if known is None else known.reason
        return self._reasons[expression.text]

    def within(self, expression: str, place: Place | None) -> Place | None:
        """Where an expression stands in the scalar at `place`; the scalar itself where escapes hide it."""
        if place is None or self.full:
            return place
        index = self._source.find(expression, place.start, place.end)
        if index < 0:
            return place
        lines = self._source.count("\n", place.start, index)
        column = index - self._source.rfind("\n", 0, index) if lines else place.column + index - place.start
        return Place(place.line + lines, column, index, index + len(expression))


def _in_order(found: Iterable[Mistake]) -> tuple[Mistake, ...]:
    return tuple(sorted(found, key=lambda mistake: (mistake.line or 0, mistake.column or 0)))


def shortened(text: str) -> str:
    """At most 80 characters of it, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:79] + "…"
