"""Containers that repeat, timers, signals, child runs, forks, cached results.

Safe while the release before this one still runs: what is new may be empty there, and nothing is taken away.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_RUNS = (
    sa.Column("start_us", sa.BigInteger(), nullable=True),
    sa.Column("phase", sa.String(length=10), nullable=True),
    sa.Column("retries", sa.Integer(), nullable=True),
    sa.Column("models_json", sa.Text(), nullable=True),
    sa.Column("forked_from", sa.String(length=36), nullable=True),
    sa.Column("parent_run_id", sa.String(length=36), nullable=True),
    sa.Column("parent_step_id", sa.String(length=36), nullable=True),
    sa.Column("answers_to", sa.String(length=36), nullable=True),
    sa.Column("depth", sa.Integer(), nullable=True),
)
_STEPS = (
    sa.Column("waits_for", sa.String(length=120), nullable=True),
    sa.Column("input_json", sa.Text(), nullable=True),
    sa.Column("input_digest", sa.String(length=64), nullable=True),
    sa.Column("size", sa.Integer(), nullable=True),
    sa.Column("progress", sa.Integer(), nullable=True),
)


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    for column in _RUNS:
        op.add_column("runs", column)
    for column in _STEPS:
        op.add_column("steps", column)
    # Containers that were under way already: they wait for the steps of the branch they chose.
    op.execute("UPDATE steps SET waits_for = 'children' WHERE status = 'waiting' AND branch IS NOT NULL")
    _partial("ix_runs_parent_run_id", "runs", ["parent_run_id"], "parent_run_id IS NOT NULL")
    _partial("ix_runs_answers_to", "runs", ["answers_to"], "answers_to IS NOT NULL")
    _partial("ix_steps_children", "steps", ["run_id", "parent_key"], "parent_key IS NOT NULL")
    _partial("ix_steps_waits_for", "steps", ["run_id", "waits_for"], "waits_for IS NOT NULL")
    _partial("ix_steps_active", "steps", ["run_id"], "status IN ('ready', 'running')")
    op.create_table(
        "signals",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("payload_json", sa.Text(), nullable=True),
        sa.Column("payload_digest", sa.String(length=64), nullable=True),
        sa.Column("taken_by", sa.String(length=300), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_signals_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_signals"),
    )
    op.create_index("ix_signals_run_id_name", "signals", ["run_id", "name"], unique=False)
    op.create_table(
        "cached_results",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("output_json", sa.Text(), nullable=True),
        sa.Column("output_digest", sa.String(length=64), nullable=True),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_cached_results"),
    )
    op.create_index("ix_cached_results_expires_us", "cached_results", ["expires_us"], unique=False)
