"""`aigateway spend`: what was spent, by day, model, provider, workflow, key or tag."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from aigateway.cli.options import ConfigOption, JsonOption, connect, print_json, print_table

# Imports inside functions: the HTTP client and pydantic cost more than a command's --help may take.
# ruff: noqa: PLC0415

_GROUPS = ("day", "model", "provider", "workflow", "key", "tag")
_AGO = re.compile(r"(\d{1,5})([dh])")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog="Example: aigateway spend --by day,model --since 7d", rich_help_panel="Look at the ledger")(
        spend
    )


def spend(
    *,
    by: Annotated[str, typer.Option(metavar="NAMES", help=f"Any of {', '.join(_GROUPS)}, with commas.")] = "day,model",
    since: Annotated[str | None, typer.Option(help="7d, 12h, or a date such as 2026-11-01 (UTC).")] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write CSV to this file instead (- is stdout).")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Sums the ledger. Unknown prices are counted beside the sum, never as free. A call with several tags counts under each."""
    groups = _groups(by)
    params = {"group_by": ",".join(groups), "since": _instant(since)}
    with connect(config) as client:
        if csv is not None:
            _write(csv, client.text("/v1/spend.csv", params))
            return
        answer = client.get_all("/v1/spend", params)
    if as_json:
        print_json(answer)
    else:
        _print(answer["data"], groups)


def _groups(by: str) -> list[str]:
    names = [name.strip() for name in by.split(",") if name.strip()]
    for name in names:
        if name not in _GROUPS:
            raise typer.BadParameter(f"{name} is none of {', '.join(_GROUPS)}", param_hint="--by")
    return names


def _instant(since: str | None) -> str | None:
    if since is None:
        return None
    if match := _AGO.fullmatch(since):
        ago = timedelta(days=int(match[1])) if match[2] == "d" else timedelta(hours=int(match[1]))
        return (datetime.now(UTC) - ago).isoformat()
    try:
        instant = datetime.fromisoformat(since)
    except ValueError:
        raise typer.BadParameter(f"{since} is neither 7d, 12h nor a date", param_hint="--since") from None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).isoformat()


def _write(file: Path, text: str) -> None:
    if str(file) == "-":
        typer.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="--csv") from None


def _print(rows: list[dict[str, Any]], groups: list[str]) -> None:
    if not rows:
        typer.echo("nothing was spent", err=True)
        return
    from aigateway.timeline import money

    print_table(
        (*groups, "calls", "cost", "unknown prices", "tokens"),
        (
            (
                *(row[name] for name in groups),
                row["calls"],
                money(row["cost_usd"]),
                row["cost_unknown_calls"],
                row["tokens"],
            )
            for row in rows
        ),
    )
