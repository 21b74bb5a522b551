"""Where in a trace a run was submitted, so that its steps continue it in whichever process.

Safe while the release before this one still runs: a column that may be empty.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("trace_context", sa.String(55)))
