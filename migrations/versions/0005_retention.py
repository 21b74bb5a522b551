"""What retention needs: runs that are being deleted, and by which payload rows are found.

May be applied while the release before this one still runs: what is new may be empty there, and nothing is taken away.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_INDEXES = (
    ("runs", "finished_us", "finished_us IS NOT NULL"),
    ("runs", "pruning_us", "pruning_us IS NOT NULL"),
    ("runs", "version_id", "version IS NULL"),
    ("runs", "input_digest", "input_digest IS NOT NULL"),
    ("runs", "output_digest", "output_digest IS NOT NULL"),
    ("steps", "input_digest", "input_digest IS NOT NULL"),
    ("steps", "output_digest", "output_digest IS NOT NULL"),
    ("signals", "payload_digest", "payload_digest IS NOT NULL"),
    ("cached_results", "output_digest", "output_digest IS NOT NULL"),
)


def upgrade() -> None:
    op.add_column("runs", sa.Column("pruning_us", sa.BigInteger(), nullable=True))
    for table, column, where in _INDEXES:
        condition = sa.text(where)
        op.create_index(
            f"ix_{table}_{column}", table, [column], unique=False, sqlite_where=condition, postgresql_where=condition
        )
