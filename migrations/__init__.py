"""Alembic migrations; found by their path, imported by nobody."""
