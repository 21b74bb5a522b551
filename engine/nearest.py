"""The known name that somebody who mistyped one most likely meant."""

import difflib
from collections.abc import Iterable

_LONGEST_WORD = 60


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the word, or None where none is near."""
    if not 0 < len(word) <= _LONGEST_WORD:
        return None
    candidates = sorted(name for name in known if abs(len(name) - len(word)) <= 8)[:1000]
    exact = [name for name in candidates if name.lower() == word.lower().replace("-", "_")]
    found = exact or difflib.get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return found[0] if found else None
