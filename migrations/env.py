"""Alembic's entry: runs on the connection that `engine.store.migrate` hands in, so that its lock covers the upgrade."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, render_as_batch=connection.dialect.name == "sqlite")
context.run_migrations()
