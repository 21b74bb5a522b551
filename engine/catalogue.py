"""Parsed definitions by version, kept in memory: a version never changes, so a copy is never stale."""

import threading
from collections import OrderedDict

from engine.loader import load
from engine.plan import Graph
from engine.store.database import Tx
from engine.store.definitions import get_version

_KEPT = 256


class Catalogue:
    """The graphs of the versions used last; shared by all database threads of a process."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[str, Graph] = OrderedDict()
        self._lock = threading.Lock()

    def graph(self, tx: Tx, version_id: str) -> Graph:
        """The graph of a stored version."""
        with self._lock:
            found = self._graphs.get(version_id)
            if found is not None:
                self._graphs.move_to_end(version_id)
                return found
        row = get_version(tx, version_id)
        assert row is not None, "a version outlives the runs that are pinned to it"
        graph = Graph(load(row["config_yaml"], name=row["name"]))
        with self._lock:
            self._graphs[version_id] = graph
            if len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
        return graph
