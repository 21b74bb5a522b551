"""Chat answers that are used again, and what that saved.

Safe while the release before this one still runs: nothing that it knows changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("requests", sa.Column("saved_picousd", sa.BigInteger(), nullable=True))
    op.create_table(
        "cached_answers",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("answer_json", sa.Text(), nullable=False),
        sa.Column("provider", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("cost_picousd", sa.BigInteger(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_cached_answers"),
    )
    op.create_index(
        "ix_cached_answers_expires_us_size_bytes", "cached_answers", ["expires_us", "size_bytes"], unique=False
    )
