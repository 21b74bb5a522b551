"""Schedules that a person has paused.

Safe while the release before this one still runs: a paused schedule has no next time, which is all that it looks at.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("schedules", sa.Column("paused_us", sa.BigInteger()))
