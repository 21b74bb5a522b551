"""Parsed definitions by version, kept in memory: a version never changes, so a copy is never stale."""

import threading
from collections import OrderedDict

from engine.definition import Definition
from engine.errors import UserError
from engine.loader import load
from engine.plan import Graph
from engine.store.database import Row, Tx
from engine.store.definitions import get_version, newest_version_for_all

_KEPT = 256


class Catalogue:
    """The graphs of the versions used last; shared by all database threads of a process."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[str, Graph] = OrderedDict()
        self._newest: OrderedDict[str, Row] = OrderedDict()  # id, version and name of a version, by the name
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

    def newest(self, name: str) -> tuple[Definition, Row] | None:
        """The version of that name which `note_newest` was told of last. It may have been replaced since: `is_newest` tells."""
        with self._lock:
            version = self._newest.get(name)
            graph = None if version is None else self._graphs.get(version["id"])
        return None if version is None or graph is None else (graph.definition, version)

    def note_newest(self, version: Row) -> None:
        """Remember the row of a name's newest version, which was loaded just now."""
        with self._lock:
            self._newest[version["name"]] = version
            self._newest.move_to_end(version["name"])
            if len(self._newest) > _KEPT:
                self._newest.popitem(last=False)

    def loaded(self, tx: Tx, version_id: str) -> Graph:
        """The same for whoever needs the steps. Raises: UserError where this release cannot load the definition."""
        graph = self.graph(tx, version_id)
        if graph.problem is not None:
            raise UserError("invalid_workflow", graph.problem, param="workflow")
        return graph


def is_newest(tx: Tx, version: Row) -> bool:
    """Whether a version is still the newest one of its name."""
    newest = newest_version_for_all(tx, version["name"])
    return newest is not None and newest["id"] == version["id"]


def _read(row: Row) -> Graph:
    try:
        return Graph(load(row["config_yaml"], name=row["name"]))
    except UserError as error:
        version = "" if row["version"] is None else f", version {row['version']},"
        problem = f"the definition of '{row['name']}'{version} cannot be loaded by this release: {error.message}"
        return Graph(Definition(name=row["name"], steps=(), source=row["config_yaml"]), problem)
