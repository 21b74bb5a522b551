"""Upstream models that rest, shared by all processes; cache writes that are kept for an hour.

Safe while the release before this one still runs: what is new may be empty there, and nothing is taken away.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provider_health",
        sa.Column("provider", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("trips", sa.Integer(), nullable=False),
        sa.Column("error_class", sa.String(length=30), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("probe_until_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("provider", "model", name="pk_provider_health"),
    )
    op.add_column("requests", sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=True))
