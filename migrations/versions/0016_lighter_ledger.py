"""Indexes of `requests` that a call through the gateway does not have to keep up.

Safe while the release before this one still runs: it asks for what it finds without them too, a few open calls.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_requests_worker_id_status", "requests")
    op.drop_index("ix_requests_run_id_step_id", "requests")
    of_runs = sa.text("run_id IS NOT NULL")
    op.create_index(
        "ix_requests_run_id_step_id", "requests", ["run_id", "step_id"], sqlite_where=of_runs, postgresql_where=of_runs
    )
