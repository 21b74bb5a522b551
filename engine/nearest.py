"""The known name that somebody who mistyped one most likely meant."""

import difflib
from collections.abc import Iterable

_LONGEST_WORD = 60
_MOST_CANDIDATES = 200


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the word, or None where none is near."""
    if not 0 < len(word) <= _LONGEST_WORD:
        return None
    alike = sorted((abs(len(name) - len(word)), name[:1] != word[:1], name) for name in known)
    candidates = [name for difference, _, name in alike if difference <= 8][:_MOST_CANDIDATES]
    exact = [name for name in candidates if name.lower() == word.lower().replace("-", "_")]
    found = exact or difflib.get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return found[0] if found else None
