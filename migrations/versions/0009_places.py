"""Runs of workflows with `concurrency`, in line or under way; ready steps by workflow.

Safe while the release before this one still runs: it refuses such definitions, and the steps that it stores name no workflow.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("steps", sa.Column("workflow_name", sa.String(length=200), nullable=True))
    ready = sa.text("status = 'ready'")
    op.create_index(
        "ix_steps_ready",
        "steps",
        ["priority", "workflow_name", "due_us"],
        unique=False,
        sqlite_where=ready,
        postgresql_where=ready,
    )
    op.create_table(
        "places",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("line", sa.String(length=310), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_places_run_id"),
        sa.PrimaryKeyConstraint("run_id", name="pk_places"),
    )
    for name, columns, where in (
        ("ix_places_in_line", ["line", "rank", "run_id"], "since_us IS NULL"),
        ("ix_places_under_way", ["line"], "since_us IS NOT NULL"),
    ):
        op.create_index(
            name, "places", columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
        )
