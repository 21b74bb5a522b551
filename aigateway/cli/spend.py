"""`aigateway spend`: what was spent, by day, model, provider, workflow, key or tag."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from aigateway.cli.options import ConfigOption, JsonOption, print_json
from aigateway.cli.reach import looked
from aigateway.cli.tables import print_table
from aigateway.cli.times import SinceOption, instant

# Imports inside functions: the HTTP client and pydantic cost more than a command's --help may take.
# ruff: noqa: PLC0415

_GROUPS = ("day", "model", "provider", "workflow", "key", "tag")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog="Example: aigateway spend --by day,model --since 7d", rich_help_panel="Look at the ledger")(
        spend
    )


def spend(
    *,
    by: Annotated[str, typer.Option(metavar="NAMES", help=f"Any of {', '.join(_GROUPS)}, with commas.")] = "day,model",
    since: SinceOption = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write CSV to this file instead (- is stdout).")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Sums the ledger. Unknown prices are counted beside the sum, never as free. A call with several tags counts under each."""
    groups = _groups(by)
    params = {"group_by": ",".join(groups), "since": instant(since)}
    with looked(config) as client:
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


def _write(file: Path, text: str) -> None:
    if str(file) == "-":
        typer.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="--csv") from None


def _print(rows: list[dict[str, Any]], groups: list[str]) -> None:
    """On a terminal with their sum, where no call counts in two rows."""
    if not rows:
        typer.echo("nothing was spent", err=True)
        return
    from aigateway.timeline import money

    for_people = sys.stdout.isatty()
    lines = [
        (
            *(_shown(row, name) if for_people else row[name] for name in groups),
            row["calls"],
            money(row["cost_usd"]),
            row["cost_unknown_calls"],
            row["tokens"],
        )
        for row in rows
    ]
    if for_people and len(rows) > 1 and "tag" not in groups:
        calls, cost, unknown, tokens = (
            sum(row[name] for row in rows) for name in ("calls", "cost_usd", "cost_unknown_calls", "tokens")
        )
        lines.append(("all", *[""] * (len(groups) - 1), calls, money(cost), unknown, tokens))
    print_table((*groups, "calls", "cost", "unknown prices", "tokens"), lines)


def _shown(row: dict[str, Any], group: str) -> str:
    """A group's name for people: a key is told by its name, what has none by a dash."""
    name = row.get("key_name") or row["key"] if group == "key" else row[group]
    return "-" if name is None else str(name)
