"""Words mistakes in the configuration: from pydantic's findings to one line each that names file, line, key and remedy.

No message shows a value: it may be a secret.
"""

import types
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aigateway.config_file import ConfigTree, KeyPath, path_text
from api.findings import words_of
from engine.errors import UserError
from engine.nearest import nearest

_OBJECTS = ("dict_type", "model_type", "model_attributes_type")


def add_validation_mistakes(tree: ConfigTree, error: ValidationError, schema: type[BaseModel]) -> None:
    """Adds pydantic's findings to the tree's mistakes, in the order of the file."""
    already = {mistake.path for mistake in tree.mistakes}
    for finding in error.errors(include_url=False, include_input=False):
        path: KeyPath = finding["loc"]
        if path_text(path) in already:
            continue  # a variable that is not set, say, explains the wrong value as well
        if finding["type"] == "extra_forbidden":
            _add_unknown_key(tree, path, schema)
        else:
            tree.mistake(path, _words(finding))
    tree.mistakes.sort(key=lambda mistake: mistake.line or 0)


def _words(finding: ErrorDetails) -> str:
    """YAML's word for an object is a mapping."""
    return "must be a mapping of keys to values" if finding["type"] in _OBJECTS else words_of(finding)


def _add_unknown_key(tree: ConfigTree, path: KeyPath, schema: type[BaseModel]) -> None:
    known = known_keys(schema_at(schema, path[:-1]))
    suggestion = nearest(str(path[-1]), known)
    if suggestion:
        tree.mistake(path, f'unknown key, did you mean "{suggestion}"?', suggestion=suggestion)
    else:
        tree.mistake(path, f"unknown key; valid here: {', '.join(known)}")


def known_keys(annotation: Any) -> list[str]:
    """The keys that a section of the settings may have."""
    return list(annotation.model_fields) if _is_section(annotation) else []


def section_paths(annotation: Any) -> list[tuple[str, ...]]:
    """Every key with a fixed name, nested ones too: what lies below names that users choose is not among them."""
    found: list[tuple[str, ...]] = []
    for key in known_keys(annotation):
        below = section_paths(schema_at(annotation, (key,)))
        found += [(key,), *((key, *rest) for rest in below)]
    return found


def schema_at(annotation: Any, path: KeyPath) -> Any:
    """The type of the settings at a path, without `Annotated` and `None`; None where nothing can stand."""
    current = _bare(annotation)
    for part in path:
        origin = get_origin(current)
        if _is_section(current):
            found = current.model_fields.get(str(part))
            current = _bare(found.annotation) if found else None
        elif origin is dict:
            current = _bare(get_args(current)[1])
        elif origin is list and isinstance(part, int):
            current = _bare(get_args(current)[0])
        elif is_dataclass(current) or current is object:
            current = object  # another room's data: that room says what may stand there
        else:
            return None
    return current


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _bare(annotation: Any) -> Any:
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not types.NoneType]
            annotation = members[0]
        elif origin is Literal:
            return str
        else:
            return annotation


def raise_mistakes(tree: ConfigTree) -> NoReturn:
    """Raises: UserError(invalid_config), its message the first mistake, its details all of them."""
    first = tree.mistakes[0]
    raise UserError("invalid_config", first.message, param=first.path, details=tree.mistakes)
