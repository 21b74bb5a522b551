"""Sums of deleted ledger rows, which the counters of /metrics go on counting.

Safe while the release before this one still runs: it neither reads nor needs the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_LABELS = ("provider", "model", "workflow_name", "status", "error_class")
_SUMS = ("calls", "cost_picousd", "unknown_price", "input", "cache_read", "cache_write", "output")


def upgrade() -> None:
    op.create_table(
        "pruned_calls",
        *(sa.Column(name, sa.String(length=255), nullable=False) for name in _LABELS),
        sa.Column("latency_bucket", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ttft_bucket", sa.Integer(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _SUMS),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("ttft_ms", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(*_LABELS, "latency_bucket", "ttft_bucket", name="pk_pruned_calls"),
    )
