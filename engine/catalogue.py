"""Parsed definitions by version, kept in memory: a version never changes, so a copy is never stale."""

import threading
from collections import OrderedDict

from engine.definition import Definition
from engine.errors import UserError
from engine.loader import load
from engine.plan import Graph
from engine.store.database import Row, Tx
from engine.store.definitions import get_version

_KEPT = 256


class Catalogue:
    """The graphs of the versions used last; shared by all database threads of a process."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[str, Graph] = OrderedDict()
        self._lock = threading.Lock()

    def graph(self, tx: Tx, version_id: str) -> Graph:
        """The graph of a stored version. One that this release cannot load has no steps, and `problem` says why."""
        with self._lock:
            found = self._graphs.get(version_id)
            if found is not None:
                self._graphs.move_to_end(version_id)
                return found
        row = get_version(tx, version_id)
        assert row is not None, "a version outlives the runs that are pinned to it"
        graph = _read(row)
        with self._lock:
            self._graphs[version_id] = graph
            if len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
        return graph

    def loaded(self, tx: Tx, version_id: str) -> Graph:
        """The same for whoever needs the steps. Raises: UserError where this release cannot load the definition."""
        graph = self.graph(tx, version_id)
        if graph.problem is not None:
            raise UserError("invalid_workflow", graph.problem, param="workflow")
        return graph


def _read(row: Row) -> Graph:
    try:
        return Graph(load(row["config_yaml"], name=row["name"]))
    except UserError as error:
        version = "" if row["version"] is None else f", version {row['version']},"
        problem = f"the definition of '{row['name']}'{version} cannot be loaded by this release: {error.message}"
        return Graph(Definition(name=row["name"], steps=(), source=row["config_yaml"]), problem)
