"""The door to the workflow language: text or data in, a checked `Definition` out, or every mistake at once."""

import json
import re
from collections.abc import Sequence

from engine.checks import check
from engine.definition import Definition
from engine.errors import Mistake, UserError
from engine.mistakes import Findings
from engine.yaml12 import Node, read_data, read_yaml

# Characters that JSON leaves as they are and YAML wants escaped.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def load(text: str, *, name: str | None = None, origin: str = "workflow") -> Definition:
    """The definition that a YAML text holds. `name` is what it is stored under; `origin` names the text in the error.

    Raises: UserError (`invalid_workflow`) with every mistake in `details`, and nothing else, whatever the text.
    """
    node, mistakes = read_yaml(text)
    return _checked(node, mistakes, source=text, name=name, origin=origin)


def load_data(data: object, *, name: str | None = None) -> Definition:
    """The same for plain JSON data; its mistakes have paths but no lines. Raises: UserError, as `load` does."""
    node, mistakes = read_data(data)
    source = "" if node is None or mistakes else _as_yaml(node)
    return _checked(node, mistakes, source=source, name=name, origin="workflow")


def _checked(
    node: Node | None, mistakes: Sequence[Mistake], *, source: str, name: str | None, origin: str
) -> Definition:
    findings = Findings(source if node is not None and node.place else "")
    findings.take(mistakes)
    definition = None if node is None else check(node, findings, name=name, source=source)
    if definition is not None:
        return definition
    found = findings.mistakes
    first = found[0]
    where = f" (line {first.line})" if first.line else f" ({first.path})" if first.path else ""
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    raise UserError("invalid_workflow", f"{origin}: {first.message}{where}{more}", param=first.path, details=found)


def _as_yaml(node: Node) -> str:
    text = json.dumps(node.plain(), ensure_ascii=False, indent=2)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
