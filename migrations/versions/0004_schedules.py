"""Schedules, and the runs that they start.

May be applied while the release before this one still runs: what is new may be empty there, and nothing is taken away.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_OF_SCHEDULE = "schedule_id IS NOT NULL"
_OPEN = "schedule_id IS NOT NULL AND finished_us IS NULL"


def upgrade() -> None:
    op.add_column("runs", sa.Column("schedule_id", sa.String(length=36), nullable=True))
    op.add_column("runs", sa.Column("scheduled_us", sa.BigInteger(), nullable=True))
    op.create_index(
        "uq_runs_firing",
        "runs",
        ["schedule_id", "scheduled_us"],
        unique=True,
        sqlite_where=sa.text(_OF_SCHEDULE),
        postgresql_where=sa.text(_OF_SCHEDULE),
    )
    op.create_index(
        "ix_runs_scheduled_open",
        "runs",
        ["schedule_id"],
        unique=False,
        sqlite_where=sa.text(_OPEN),
        postgresql_where=sa.text(_OPEN),
    )
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=220), nullable=False),
        sa.Column("workflow_name", sa.String(length=200), nullable=False),
        sa.Column("origin", sa.String(length=20), nullable=False),
        sa.Column("cron", sa.String(length=200), nullable=False),
        sa.Column("zone", sa.String(length=60), nullable=False),
        sa.Column("overlap", sa.String(length=10), nullable=False),
        sa.Column("catch_up", sa.Integer(), nullable=False),
        sa.Column("input_json", sa.Text(), nullable=False),
        sa.Column("tags_json", sa.Text(), nullable=False),
        sa.Column("priority", sa.String(length=10), nullable=False),
        sa.Column("budget_picousd", sa.BigInteger(), nullable=True),
        sa.Column("key_id", sa.String(length=36), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=True),
        sa.Column("backlog_json", sa.Text(), nullable=True),
        sa.Column("last_due_us", sa.BigInteger(), nullable=True),
        sa.Column("last_run_id", sa.String(length=36), nullable=True),
        sa.Column("fired", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("missed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_us", sa.BigInteger(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
    )
    op.create_index("ix_schedules_next_us", "schedules", ["next_us"], unique=False)
    op.create_index("ix_schedules_workflow_name", "schedules", ["workflow_name"], unique=False)
