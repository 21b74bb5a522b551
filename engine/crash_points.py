"""The commit points by name, and what can go wrong exactly there: death, a lost answer, a database that refuses. Tests arm one; in
production nothing is armed and nothing happens.

Every function that runs in a writing transaction says which commit it belongs to (`tx.point`), and
`tests/chaos/test_crash_points.py` kills a process before and after each, cuts it off there, and has the database refuse it: a name
without a test fails the suite.
"""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from engine.errors import UserError

Moment = Literal["before", "after"]
Refusal = Literal["locked", "full"]
"""What a database answers to a write: the lock was not to be had in time, or its disk is full."""
Fault = Literal["before", "after", "refused", "lost", "locked", "full"]
_FAULTS: tuple[str, ...] = get_args(Fault)
_SHAPE = f"a crash point is NAME:{'|'.join(_FAULTS)}[_for_SECONDS]:MARKER"


class ReplyLost(Exception):
    """The database did not answer. `refused`: it had not committed; `lost`: it had."""


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """SIGKILL this process when it commits `name`, or take the answer from it, or have it refused: the first process that gets there
    makes `marker` and suffers it, once, and where it `lasts_s` every process for so long.
    """

    name: str
    fault: Fault
    marker: Path
    lasts_s: float = 0.0

    def pass_by(self, points: Sequence[str], moment: Moment) -> Refusal | None:
        """Die here, or go on; or the refusal that the database is to answer. Raises: ReplyLost where that is armed."""
        due: Moment = "after" if self.fault in ("after", "lost") else "before"
        if moment != due or self.name not in points or not self._strikes():
            return None
        if self.fault == "locked" or self.fault == "full":
            return self.fault
        if self.fault in ("refused", "lost"):
            raise ReplyLost(f"the reply of {self.name} was lost")
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    def _strikes(self) -> bool:
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return time.time() < self.marker.stat().st_mtime + self.lasts_s
        return True


def read_crash_point(text: str | None) -> CrashPoint | None:
    """`NAME:FAULT[_for_SECONDS]:MARKER` as a crash point. Raises: UserError."""
    if text is None:
        return None
    name, _, rest = text.partition(":")
    kind, _, marker = rest.partition(":")
    fault, _, seconds = kind.partition("_for_")
    if fault not in _FAULTS or not name or not marker:
        raise UserError("invalid_config", _SHAPE)
    try:
        lasts_s = float(seconds or 0)
    except ValueError:
        raise UserError("invalid_config", _SHAPE) from None
    return CrashPoint(name, cast(Fault, fault), Path(marker), lasts_s)
