"""A run's history: append-only, numbered without gaps under the run's row lock."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, select

from engine.states import EventType
from engine.store.database import Row, Tx
from engine.store.json_text import dumps, loads
from engine.store.statements import ManyRows, Statement
from engine.store.tables import events

_APPEND = ManyRows(events, ("run_id", "seq", "type", "step_key", "attempt", "at_us", "data_json"))
_SINCE = Statement(
    select(events)
    .where(events.c.run_id == bindparam("run"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(bindparam("most"))
)
_LAST_PAUSE = Statement(
    select(events.c.data_json)
    .where(events.c.run_id == bindparam("run"), events.c.type == EventType.RUN_PAUSED.value)
    .order_by(events.c.seq.desc())
    .limit(1)
)


class History:
    """Collects what one transaction adds to one run's history; under the run's row lock. `seq` is the newest number."""

    def __init__(self, run: Row, now: int) -> None:
        self._run_id = run["id"]
        self.seq: int = run["event_seq"]
        self._now = now
        self._rows: list[dict[str, Any]] = []

    def add(
        self,
        kind: EventType,
        *,
        step: str | None = None,
        attempt: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one event."""
        self.seq += 1
        self._rows.append(
            {
                "run_id": self._run_id,
                "seq": self.seq,
                "type": kind.value,
                "step_key": step,
                "attempt": attempt,
                "at_us": self._now,
                "data_json": dumps(data) if data else None,
            }
        )

    def write(self, tx: Tx) -> None:
        """Store what was collected."""
        tx.insert(_APPEND, self._rows)


def history_since(tx: Tx, run_id: str, after: int, most: int) -> list[Row]:
    """Events behind number `after`, oldest first."""
    return tx.all(_SINCE, {"run": run_id, "after": after, "most": most})


def why_paused(tx: Tx, run_id: str) -> str | None:
    """What a run's latest pause said of its reason: the limit that its next call did not fit into. None where it said nothing."""
    return last_pause(tx, run_id).get("message")


def last_pause(tx: Tx, run_id: str) -> Row:
    """What the history tells of a run's latest pause: `reason`, `message`, and `run` where it was one below that stopped."""
    row = tx.one(_LAST_PAUSE, {"run": run_id})
    return loads(row["data_json"]) if row and row["data_json"] else {}
