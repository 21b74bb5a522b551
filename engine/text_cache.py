"""A least-recently-used cache of what texts were parsed into, bounded by characters rather than by entries, safe across threads."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Parsed = TypeVar("Parsed")


class TextCache(Generic[Parsed]):
    """Holds results for texts of at most `max_characters` together; a text of more than an eighth of that is not kept."""

    def __init__(self, max_characters: int) -> None:
        self._room = max_characters
        self._largest = max_characters // 8
        self._kept: OrderedDict[Hashable, tuple[int, Parsed]] = OrderedDict()
        self._lock = Lock()

    def get(self, text: str, variant: Hashable, make: Callable[[], Parsed]) -> Parsed:
        """The cached result for this text and variant, else a new one. Two threads may make the same one twice."""
        key = (text, variant)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found[1]
        made = make()
        if len(text) <= self._largest:
            self._keep(key, len(text) + 1, made)
        return made

    def _keep(self, key: Hashable, size: int, made: Parsed) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = (size, made)
            self._room -= size
            while self._room < 0:
                _, (freed, _) = self._kept.popitem(last=False)
                self._room += freed
