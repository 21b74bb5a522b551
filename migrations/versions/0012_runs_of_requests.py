"""Runs by the request that started them.

Safe while the release before this one still runs: an index.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_runs_request_id", "runs", ["request_id"])
