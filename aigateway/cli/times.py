"""Times as commands take them: so long ago, or a date."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

SinceOption = Annotated[str | None, typer.Option(metavar="TIME", help="7d, 12h, or a date such as 2026-11-01 (UTC).")]
_AGO = re.compile(r"(\d{1,5})([dh])")


def instant(since: str | None) -> str | None:
    """As the API takes it. Raises: BadParameter."""
    if since is None:
        return None
    if match := _AGO.fullmatch(since):
        ago = timedelta(days=int(match[1])) if match[2] == "d" else timedelta(hours=int(match[1]))
        return (datetime.now(UTC) - ago).isoformat()
    try:
        told = datetime.fromisoformat(since)
    except ValueError:
        raise typer.BadParameter(f"{since} is neither 7d, 12h nor a date", param_hint="--since") from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).isoformat()
