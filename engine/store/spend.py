"""What was spent, by group. Sums are always computed from the ledger's rows; asked by `/v1/spend` and the dashboard."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, ColumnElement, TableValuedAlias, cast, func, literal_column, select, true

from engine.store.database import Row, Tx
from engine.store.requests import SUMS, narrowed
from engine.store.statements import Statement
from engine.store.tables import requests

DAY_US = 86_400_000_000
_PLAIN: Mapping[str, ColumnElement[Any]] = {
    "day": requests.c.started_us.op("/")(literal_column(str(DAY_US))),
    "model": requests.c.model,
    "provider": requests.c.provider,
    "workflow": requests.c.workflow_name,
    "key": requests.c.key_id,
}
SPEND_GROUPS = (*_PLAIN, "tag")
_TEXT = {"model", "provider", "workflow", "key", "tag"}
# The members of `tags` as rows of their own, beside the call that has them. PostgreSQL reads no NUL in JSON.
_READABLE = func.replace(requests.c.tags, r"\u0000", r"\ufffd")
_TAGS: Mapping[str, TableValuedAlias] = {
    "sqlite": func.json_each(_READABLE).table_valued("key", "value", name="each_tag"),
    "postgresql": func.json_each_text(cast(_READABLE, JSON)).table_valued("key", "value", name="each_tag"),
}


def spend(tx: Tx, groups: tuple[str, ...], filters: Mapping[str, Any]) -> list[Row]:
    """Sums by the named groups (SPEND_GROUPS); a day is a number of days since 1970 UTC.

    A tag is `key:value`. A call with several tags counts under each of them, one without any under null: sums by tag overlap.
    """
    tags = _TAGS[tx.dialect]
    known = {**_PLAIN, "tag": tags.c.key + ":" + tags.c.value}
    columns = [known[name].label(name) for name in groups]
    query = select(*columns, *SUMS)
    if "tag" in groups:
        query = query.select_from(requests.outerjoin(tags, true()))
    query = narrowed(tx, query, filters).group_by(*columns).order_by(*columns)
    return [_read(row) for row in tx.all(Statement(query))]


def _read(row: Row) -> Row:
    """PostgreSQL sums integers as decimals."""
    return {name: value if name in _TEXT or value is None else int(value) for name, value in row.items()}
