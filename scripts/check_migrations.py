"""Shows that the migrations, run on an empty database, make exactly the tables that the code declares.

Two empty databases of each kind: one is migrated to the newest revision, the other made straight from
`engine.store.tables`; then everything that the database itself tells of the two is compared, generated columns, indexes
and constraints included. Run by `make check`; needs `tests` on the path for the PostgreSQL server.
"""

import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from services import PostgresServer
from sqlalchemy import Inspector, create_engine, inspect, make_url

from engine.store.migrate import upgrade
from engine.store.tables import metadata

REVISION_TABLE = "alembic_version"


def main() -> int:
    """Prints each difference as one line; exit code 1 where there is any."""
    differences: list[str] = []
    with empty_databases() as pairs:
        for kind, (migrated, declared) in pairs.items():
            upgrade(migrated)
            differences += [f"{kind}: {line}" for line in compare(migrated, declared)]
    for line in differences:
        print(line)
    print(f"migrations and tables: {len(differences)} difference(s) on {' and '.join(pairs)}")
    return 1 if differences else 0


@contextmanager
def empty_databases() -> Generator[dict[str, tuple[str, str]]]:
    """Two URLs for each kind of database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = PostgresServer()
        stack.callback(server.stop)
        server.start()
        first, second = (stack.enter_context(server.database(name)) for name in ("migrated", "declared"))
        yield {"sqlite": (f"sqlite:///{folder}/a.db", f"sqlite:///{folder}/b.db"), "postgresql": (first, second)}


def compare(migrated: str, declared: str) -> list[str]:
    """What one of the two has and the other has not."""
    found = describe(migrated)
    make_tables(declared)
    wanted = describe(declared)
    lines = [f"only the migrations make {line}" for line in sorted(found - wanted)]
    return lines + [f"only the tables declare {line}" for line in sorted(wanted - found)]


def make_tables(url: str) -> None:
    """Creates what the code declares, with no migration."""
    engine = create_engine(_with_driver(url))
    metadata.create_all(engine)
    engine.dispose()


def describe(url: str) -> set[str]:
    """Everything in a database, one line each."""
    engine = create_engine(_with_driver(url))
    inspector = inspect(engine)
    tables = [table for table in inspector.get_table_names() if table != REVISION_TABLE]
    lines = {line for table in tables for line in describe_table(inspector, table)}
    engine.dispose()
    if not tables:
        raise SystemExit(f"no table at all in {url}: nothing was compared")
    return lines


def describe_table(inspector: Inspector, table: str) -> Iterator[str]:
    """The table's columns, keys, indexes and constraints as the database tells them, in no order."""
    for column in inspector.get_columns(table):
        parts = [f"{key}={value}" for key, value in sorted(column.items()) if key not in ("name", "comment", "type")]
        yield f"{table}.{column['name']} {column['type']!r} {' '.join(parts)}"
    yield f"{table} primary key {inspector.get_pk_constraint(table)}"
    for foreign_key in inspector.get_foreign_keys(table):
        yield f"{table} foreign key {foreign_key}"
    for unique in inspector.get_unique_constraints(table):
        yield f"{table} unique {unique}"
    for check in inspector.get_check_constraints(table):
        yield f"{table} check {check}"
    for index in inspector.get_indexes(table):
        # SQLAlchemy's expression objects are told by their text.
        parts = {key: str(value) for key, value in sorted(index.items()) if key != "dialect_options"}
        options = {key: str(value) for key, value in sorted(index.get("dialect_options", {}).items())}
        yield f"{table} index {parts} {options}"


def _with_driver(url: str) -> str:
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


if __name__ == "__main__":
    sys.exit(main())
