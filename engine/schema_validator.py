"""The JSON Schema validator of `engine.json_schemas`: draft 2020-12 that no author's schema can make endless.

Patterns are tried by `regex`, which knows a time limit and reads what Python's own engine reads; Python's, which jsonschema
uses, can take hours for thirty characters. Every keyword that is tried and every mistake that is found counts as work.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, cast

from engine.values import is_list, is_object

PATTERN_S = 0.25
"""CPU time of the process that the patterns of one check may take together."""
MAX_WORK = 1_250_000
"""Units that one check may take: about a microsecond each."""
MAX_CPU_S = 1.0
"""The same in time, asked at each mistake alone: jsonschema writes the whole wrong value into its message."""
_TRIED = 2
_FOUND = 7  # for a mistake, at each level that hands it on
_COMBINED = 4  # for each schema that is tried on the same value
_COMBINING = frozenset({"$ref", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas"})
_TOO_LARGE = "takes too long to check against its schema: one of the two is too large"
_SQUARED = frozenset({"unevaluatedItems", "unevaluatedProperties"})  # jsonschema looks through a list for each entry

_Keyword = Callable[[Any, Any, Any, Any], Any]


class TooMuch(Exception):
    """A check is given up. The message is a clause that says of what there is too much."""


class Allowance:
    """What one check may still use."""

    def __init__(self) -> None:
        self._work = MAX_WORK
        self._pattern_s = PATTERN_S
        self._ends = time.thread_time() + MAX_CPU_S

    def spend(self, units: int) -> None:
        """Raises: TooMuch."""
        self._work -= units
        if self._work < 0:
            raise TooMuch(_TOO_LARGE)

    def found(self) -> None:
        """Pays for one mistake. Raises: TooMuch."""
        self.spend(_FOUND)
        if time.thread_time() > self._ends:
            raise TooMuch(_TOO_LARGE)

    def matches(self, pattern: str, text: str) -> bool:
        """Whether a pattern is found in the text. Raises: TooMuch."""
        import regex  # noqa: PLC0415  # 3 MB and 40 ms that schemas without patterns do not need

        began = time.thread_time()
        try:
            if self._pattern_s > 0:
                return regex.search(pattern, text, timeout=self._pattern_s) is not None
        except TimeoutError:
            pass
        finally:
            self._pattern_s -= time.thread_time() - began
        raise TooMuch(f"takes too long to match {pattern[:100]}")


_allowance: ContextVar[Allowance] = ContextVar("allowance")  # jsonschema hands nothing of a caller to its keywords


@contextmanager
def checked_together() -> Generator[None]:
    """All checks inside take no longer than one: a workflow may have hundreds of inputs."""
    if _allowance.get(None) is not None:
        yield
        return
    token = _allowance.set(Allowance())
    try:
        yield
    finally:
        _allowance.reset(token)


def mistakes(schema: Mapping[str, Any], value: Any, most: int) -> list[Any]:
    """jsonschema's errors of a value, `most` of them at most, in the order in which they are found.

    Raises: TooMuch; RecursionError for what is nested too deeply.
    """
    from referencing import Registry  # noqa: PLC0415  # comes with jsonschema

    nowhere: Any = Registry  # a reference that leads out of the schema leads nowhere
    with checked_together():
        found: Iterator[Any] = validator_class()(schema, registry=nowhere()).iter_errors(value)
        return [error for error, _ in zip(found, range(most), strict=False)]


@cache
def validator_class() -> Any:
    """jsonschema's validator with the keywords below in place of its own."""
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415  # takes 100 ms to import

    taken: dict[str, _Keyword] = {
        **cast(dict[str, _Keyword], Draft202012Validator.VALIDATORS),
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    return cast(Any, validators).extend(
        Draft202012Validator, {name: _counted(name, check) for name, check in taken.items()}
    )


def _counted(name: str, check: _Keyword) -> _Keyword:
    def counted(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        allowance = _allowance.get()
        parts = len(cast(Sequence[Any], wanted)) if isinstance(wanted, list | dict) else 1
        allowance.spend(_TRIED + (_COMBINED * parts if name in _COMBINING else parts // 16))
        if name in _SQUARED and (is_list(instance) or is_object(instance)):
            allowance.spend(len(instance) ** 2 // 100)
        for error in check(validator, wanted, instance, schema) or ():
            allowance.found()
            yield error

    return counted


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _allowance.get().matches(pattern, instance):
        yield _error(f"{instance[:100]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    if not is_object(instance):
        return
    for pattern, inner in patterns.items():
        for name, value in instance.items():
            if _allowance.get().matches(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not is_object(instance):
        return
    known: Mapping[str, Any] = schema.get("properties", {})
    patterns: Mapping[str, Any] = schema.get("patternProperties", {})
    allowance = _allowance.get()
    extra = [
        name
        for name in instance
        if name not in known and not any(allowance.matches(pattern, name) for pattern in patterns)
    ]
    if is_object(wanted):
        for name in extra:
            yield from validator.descend(instance[name], wanted, path=name)
    elif wanted is False and extra:
        names = ", ".join(repr(name[:60]) for name in extra[:5])
        were = "was" if len(extra) == 1 else "were"
        yield _error(f"Additional properties are not allowed ({names} {were} unexpected)")


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """jsonschema compares each item with each other one: a thousand objects take half a second."""
    if wanted and is_list(instance) and len({_frozen(item) for item in instance}) < len(instance):
        yield _error("has non-unique elements")


def _frozen(value: Any) -> Any:
    """Equal for values that JSON Schema calls equal: true is not 1, and 1.0 is."""
    if is_object(value):
        return ("object", frozenset((name, _frozen(item)) for name, item in value.items()))
    if is_list(value):
        return ("list", tuple(_frozen(item) for item in value))
    return ("boolean", value) if isinstance(value, bool) else value


def _error(message: str) -> Any:
    from jsonschema import ValidationError  # noqa: PLC0415

    return ValidationError(message)
