"""How commands print lists: fitted to a terminal for people, whole and tab-separated for programs."""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer

# Imports inside functions: rich costs more than a command's --help may take.
# ruff: noqa: PLC0415

_FIGURE = re.compile(r"\$?[\d,.]+(e-\d+)?")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\.\d{6}Z")
_NARROWEST = 12
_GAP = "  "


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, shorten: str | None = None, precise: bool = False
) -> None:
    """Rows under their headings on a terminal: figures end at the right, times are told to the second unless `precise`.

    Where a line would be too long the column `shorten` gives way; nothing else is ever cut. Elsewhere every cell is written whole,
    without headings.
    """
    from aigateway.timeline import printable

    lines = [[printable("" if cell is None else cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in lines:
            typer.echo("\t".join(line))
        return
    from rich.console import Console

    shown = lines if precise else [[_TIME.sub(r"\1 \2Z", cell) for cell in line] for line in lines]
    cut = None if shorten is None else columns.index(shorten)
    for line in fitted(columns, shown, width=Console().width, cut=cut):
        typer.echo(line)


def fitted(columns: Sequence[str], lines: Sequence[Sequence[str]], *, width: int, cut: int | None = None) -> list[str]:
    """The heading and the lines, in columns; column `cut` gives way where a line would be wider than `width` cells."""
    from rich.cells import cell_len, set_cell_size

    table = [columns, *lines]
    widths = [max(cell_len(line[at]) for line in table) for at in range(len(columns))]
    if cut is not None:
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
        widths[cut] = min(widths[cut], max(_NARROWEST, widths[cut] - max(0, over)))
    right = [_all_figures([line[at] for line in lines]) for at in range(len(columns))]

    def cell(text: str, at: int) -> str:
        if cell_len(text) > widths[at]:
            text = set_cell_size(text, widths[at] - 1) + "…"
        padding = " " * (widths[at] - cell_len(text))
        return padding + text if right[at] else text + padding

    return [_GAP.join(cell(text, at) for at, text in enumerate(line)).rstrip() for line in table]


def _all_figures(cells: Sequence[str]) -> bool:
    told = [cell for cell in cells if cell]
    return bool(told) and all(_FIGURE.fullmatch(cell) for cell in told)
