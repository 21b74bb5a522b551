"""docs/gateway-situations.md names tests: each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`(?:((?:acceptance|integration|unit|chaos)[a-z_/]*))?(?:::([a-z0-9_]+)(…)?)?`")


def test_every_test_that_the_matrix_names_is_there() -> None:
    found, wrong = 0, []
    file = ""
    for folder, test, cut in _NAMED.findall((ROOT / "docs" / "gateway-situations.md").read_text()):
        if folder:
            head, _, name = folder.rpartition("/")
            file = f"tests/{head}/test_{name}.py"
        path = ROOT / file
        text = path.read_text() if path.is_file() else ""
        wanted = f"def test_{test}" + ("" if cut else "(") if test else "def test_"
        if folder or test:
            found += 1
            if wanted not in text:
                wrong.append((file, test))
    assert not wrong
    assert found > 60
