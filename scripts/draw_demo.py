"""Draws docs/demo.svg, the README's picture: runs the demo and keeps what its terminal showed, times as measured.

Run by `make picture`. The picture names no host: fonts are those of whoever looks at it.
"""

import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT  # what the documentation of save_svg names as its default
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from aigateway.demo import play
from aigateway.demo_proof import broken
from aigateway.demo_script import CALM
from aigateway.demo_view import Narrator
from engine.errors import AIGatewayError

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "demo.svg"
WIDTH = 92
FONTS = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace'
THEME = TerminalTheme(
    background=(24, 26, 31),
    foreground=(214, 218, 226),
    normal=[
        (24, 26, 31),
        (240, 113, 120),
        (140, 200, 130),
        (229, 192, 123),
        (97, 175, 239),
        (198, 150, 230),
        (100, 200, 210),
        (214, 218, 226),
    ],
)


def main() -> int:
    """Exit code 1, and no new picture, where the demo breaks off or its claims do not hold."""
    try:
        console, problems = perform()
    except AIGatewayError as error:
        print(error.message, file=sys.stderr)
        return 1
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    PICTURE.parent.mkdir(exist_ok=True)
    console.save_svg(str(PICTURE), title="$ aigateway demo", theme=THEME, code_format=template(), unique_id="demo")
    print(f"drawn: {PICTURE.relative_to(PICTURE.parent.parent)}")
    return 0


def perform() -> tuple[Console, list[str]]:
    """The console that the demo was told on, and what of it does not hold. Raises: AIGatewayError."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    narrator = Narrator(console, animate=False)
    evidence = play(CALM, narrator)
    narrator.conclude(evidence)
    return console, broken(evidence)


def template() -> str:
    """rich's own template with the viewer's fonts in the place of fetched ones."""
    local = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    local = re.sub(r"<!--.*?-->\s*", "", local, flags=re.DOTALL)
    local = local.replace("font-family: Fira Code, monospace", f"font-family: {FONTS}")
    local = local.replace("font-family: arial", "font-family: system-ui, sans-serif")
    if "url(" in local.replace("url(#", "") or "Fira" in local:
        raise RuntimeError("rich has another template now: it would still fetch a font")
    return local


if __name__ == "__main__":
    sys.exit(main())
