"""The commit points by name, and a way to die exactly there, or to lose the database's answer. Tests arm one; in production
nothing is armed and nothing happens.

Every function that runs in a writing transaction says which commit it belongs to (`tx.point`), and
`tests/chaos/test_crash_points.py` kills a process before and after each, and cuts it off there: a name without a test fails the suite.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import UserError

Moment = Literal["before", "after"]
Fault = Literal["before", "after", "refused", "lost"]
_MOMENTS: dict[str, Moment] = {"before": "before", "after": "after", "refused": "before", "lost": "after"}


class ReplyLost(Exception):
    """The database did not answer. `refused`: it had not committed; `lost`: it had."""


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """SIGKILL this process when it commits `name`, or take the answer from it: the first process that gets there makes `marker`
    and suffers it, once.
    """

    name: str
    fault: Fault
    marker: Path

    def pass_by(self, points: Sequence[str], moment: Moment) -> None:
        """Die here, or go on. Raises: ReplyLost where that is armed."""
        if moment != _MOMENTS[self.fault] or self.name not in points:
            return
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        if self.fault in ("refused", "lost"):
            raise ReplyLost(f"the reply of {self.name} was lost")
        os.kill(os.getpid(), signal.SIGKILL)


def read_crash_point(text: str | None) -> CrashPoint | None:
    """`NAME:before|after|refused|lost:MARKER` as a crash point. Raises: UserError."""
    if text is None:
        return None
    name, _, rest = text.partition(":")
    fault, _, marker = rest.partition(":")
    if fault not in ("before", "after", "refused", "lost") or not name or not marker:
        raise UserError("invalid_config", "a crash point is NAME:before|after|refused|lost:MARKER")
    return CrashPoint(name, fault, Path(marker))
