"""Which process is sending a webhook, so that those of a dead one are sent by another at once.

Safe while the release before this one still runs: what it takes has no sender and is found again by its time, as before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_SENT_NOW = sa.text("worker_id IS NOT NULL")


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("worker_id", sa.String(length=36)))
    op.create_index(
        "ix_deliveries_worker_id", "deliveries", ["worker_id"], sqlite_where=_SENT_NOW, postgresql_where=_SENT_NOW
    )
