"""Pydantic's findings in this program's words: the same for a body over HTTP, a command's option and a key of the configuration.

No message shows a value: it may be a secret.
"""

from collections.abc import Mapping
from typing import Any

_NUMBER = "must be a number"
_WHOLE_NUMBER = "must be a whole number"
_YES_OR_NO = "must be true or false"
_OBJECT = "must be an object"
_TIME = "must be a time such as 2026-11-22T07:00:00Z"
_WORDS: Mapping[str, str] = {
    "missing": "is required",
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": _YES_OR_NO,
    "bool_parsing": _YES_OR_NO,
    "string_type": "must be text (a number needs quotes)",
    "path_type": "must be a path",
    "list_type": "must be a list",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": "needs a time zone, as in 2026-11-22T07:00:00Z",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("must be more than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
    "string_pattern_mismatch": ("must match", "pattern"),
}
_TOO_SHORT = ("too_short", "string_too_short")
_TOO_LONG = ("too_long", "string_too_long")


def words_of(finding: Mapping[str, Any]) -> str:
    """What is wrong, to be read behind the name of what it is wrong with. Pydantic's own words where there are no others."""
    kind: str = finding["type"]
    context: Mapping[str, Any] = finding.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{words} {context[bound]}"
    if kind in ("literal_error", "enum"):
        return "must be " + str(context["expected"]).replace("'", "")
    if kind in _TOO_SHORT:
        return "must not be empty" if context["min_length"] == 1 else f"must have at least {context['min_length']}"
    if kind in _TOO_LONG:
        entries = "characters" if isinstance(finding.get("input"), str) or kind == "string_too_long" else "entries"
        return f"must have at most {context['max_length']} {entries}"
    return str(context["error"]) if kind == "value_error" else str(finding["msg"])
