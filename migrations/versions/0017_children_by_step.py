"""Child runs by the step that started them, instead of by their parent alone.

Safe while the release before this one still runs: an index.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_CHILDREN = sa.text("parent_run_id IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "ix_runs_parent",
        "runs",
        ["parent_run_id", "parent_step_id"],
        sqlite_where=_CHILDREN,
        postgresql_where=_CHILDREN,
    )
    op.drop_index("ix_runs_parent_run_id", "runs")
