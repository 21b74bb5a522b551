"""Steps that only a process of their own may take are found without looking at the others.

Safe while the release before this one still runs: it does not know the index and needs none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SUSPECT = sa.text("status = 'ready' AND losses >= 2")


def upgrade() -> None:
    op.create_index(
        "ix_steps_suspect", "steps", ["due_us"], unique=False, sqlite_where=_SUSPECT, postgresql_where=_SUSPECT
    )
