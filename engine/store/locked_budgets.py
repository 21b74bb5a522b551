"""What a transaction knows of the budgets that it has locked: nobody else changes them before it ends, so that the calls of a
commit group read a budget once, sum its open calls up once, and add what they cost to it together.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, update

from engine.store.statements import Statement
from engine.store.tables import budgets
from engine.store.transaction import Row, Tx

_ADD = Statement(
    update(budgets)
    .where(budgets.c.id == bindparam("budget"))
    .values(settled_picousd=budgets.c.settled_picousd + bindparam("picousd"))
)


@dataclass(slots=True)
class _Open:
    """The worst case of a budget's calls that have no cost yet and began at `since_us` or later."""

    picousd: int
    since_us: int


class LockedBudgets:
    """One for a transaction: `tx.kept(LockedBudgets)`."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._rows: dict[str, Row] = {}
        self._lists: dict[Hashable, list[Row]] = {}
        self._open: dict[str, _Open] = {}
        self._added: dict[str, int] = {}
        tx.at_end(self.write)

    def listed(self, name: Hashable, read: Callable[[], list[Row]]) -> list[Row]:
        """What `read` locks and returns, read once a `name`. A budget is one row, however many lists it is in."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = [self._kept(row) for row in read()]
        return found

    def _kept(self, read: Row) -> Row:
        """The row as it is known here. One that was forgotten since something was added to it does not tell that yet."""
        row = self._rows.get(read["id"])
        if row is None:
            read["settled_picousd"] += self._added.get(read["id"], 0)
            row = self._rows[read["id"]] = read
        return row

    def open_picousd(self, budget: Row, since_us: int, read: Callable[[int], int]) -> int:
        """The worst case of its open calls, summed up by `read` at first. `since_us` may move by the time that a group takes."""
        found = self._open.get(budget["id"])
        if found is None:
            found = self._open[budget["id"]] = _Open(read(since_us), since_us)
        return found.picousd

    def change_open(self, rows: Iterable[Row], started_us: int, picousd: int) -> None:
        """A call that began then, and that these budgets count, was opened; below zero: it is no longer open."""
        for row in rows:
            found = self._open.get(row["id"])
            if found is not None and started_us >= found.since_us:
                found.picousd += picousd

    def add(self, budget: Row, picousd: int) -> None:
        """Such a call was settled."""
        budget["settled_picousd"] += picousd
        self._added[budget["id"]] = self._added.get(budget["id"], 0) + picousd

    def write(self) -> None:
        """Let the database know what was added."""
        for budget_id, picousd in self._added.items():
            self._tx.send(_ADD, {"budget": budget_id, "picousd": picousd})
        self._added.clear()

    def forget_open(self) -> None:
        """An open call ended of which not all is known: what is open is summed up anew."""
        self._open.clear()

    def forget(self) -> None:
        """Budgets were set, changed or deleted."""
        self.write()
        self._rows.clear()
        self._lists.clear()
        self._open.clear()
