"""The outbox of webhooks: what is to be sent, and each try. Part of `engine.store.tables`, which says how columns are written."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from engine.store.metadata import metadata
from engine.store.partial_index import where

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(36), primary_key=True),  # the webhook-id, the same on every try
    Column("run_id", String(36), ForeignKey("runs.id")),  # null: an alert
    Column("type", String(40), nullable=False),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("status", String(20), nullable=False),  # pending | delivered | dead
    Column("tries", Integer, nullable=False),
    Column("next_attempt_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("finished_us", BigInteger),
    Column("worker_id", String(36)),  # who sends it now; whoever buries that process makes it due again
    Index(None, "status", "next_attempt_us"),
    Index(None, "run_id"),
    Index("ix_deliveries_worker_id", "worker_id", **where("worker_id IS NOT NULL")),
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("delivery_id", String(36), ForeignKey("deliveries.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
)
