"""The commit points by name, and a way to die exactly there. Tests arm one; in production nothing is armed and nothing happens.

Every function that runs in a writing transaction says which commit it belongs to (`tx.point`), and
`tests/chaos/test_crash_points.py` kills a process before and after each: a name without a test fails the suite.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import UserError

Moment = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """SIGKILL this process when it commits `name`: the first process that gets there makes `marker` and dies, once."""

    name: str
    moment: Moment
    marker: Path

    def pass_by(self, points: Sequence[str], moment: Moment) -> None:
        """Die here, or go on."""
        if moment != self.moment or self.name not in points:
            return
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def read_crash_point(text: str | None) -> CrashPoint | None:
    """`NAME:before|after:MARKER` as a crash point. Raises: UserError."""
    if text is None:
        return None
    name, _, rest = text.partition(":")
    moment, _, marker = rest.partition(":")
    if moment not in ("before", "after") or not name or not marker:
        raise UserError("invalid_config", "a crash point is NAME:before|after:MARKER")
    return CrashPoint(name, moment, Path(marker))
