"""API keys, budgets, alerts; deliveries that belong to no run.

Safe while the release before this one still runs: what is new may be empty there, and nothing is taken away.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=20), nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("allowed_models_json", sa.Text(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("max_parallel", sa.Integer(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
    )
    op.create_index("ix_api_keys_name", "api_keys", ["name"], unique=False)
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("origin", sa.String(length=10), nullable=False),
        sa.Column("scope", sa.String(length=20), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=True),
        sa.Column("target", sa.String(length=330), nullable=False),
        sa.Column("limit_picousd", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.String(length=10), nullable=False),
        sa.Column("zone", sa.String(length=60), nullable=False),
        sa.Column("action", sa.String(length=10), nullable=False),
        sa.Column("alert_at_json", sa.Text(), nullable=False),
        sa.Column("period_start_us", sa.BigInteger(), nullable=False),
        sa.Column("resets_us", sa.BigInteger(), nullable=True),
        sa.Column("settled_picousd", sa.BigInteger(), nullable=False),
        sa.Column("resum_us", sa.BigInteger(), nullable=True),
        sa.Column("alerted", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budgets"),
        sa.UniqueConstraint("name", name="uq_budgets_name"),
    )
    op.create_index("ix_budgets_target", "budgets", ["target"], unique=False)
    op.create_table(
        "alerts",
        sa.Column("budget_id", sa.String(length=36), nullable=False),
        sa.Column("period_start_us", sa.BigInteger(), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("data_json", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("told_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("budget_id", "period_start_us", "threshold", name="pk_alerts"),
    )
    _partial("ix_alerts_untold", "alerts", ["at_us"], "told_us IS NULL")
    op.add_column("requests", sa.Column("reserved_tokens", sa.BigInteger(), nullable=True))
    _partial("ix_requests_key_id_started_us", "requests", ["key_id", "started_us"], "key_id IS NOT NULL")
    _partial("ix_requests_unsettled", "requests", ["started_us"], "status IN ('started', 'unknown')")
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.alter_column("run_id", existing_type=sa.String(length=36), nullable=True)
