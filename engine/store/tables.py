"""Every table, once. Times are integer microseconds UTC (`*_us`), money integer pico-dollars, ids UUIDv7 text, JSON compact text.

workflows, workflow_versions   definitions: the newest text by name, and every version a run may be pinned to
runs, run_tags                 one row a run; hot, so large inputs and outputs live in payloads
steps, attempts                one row a step, one row a claim of it; `steps.attempt` is the fence
schedules                      when workflows run by themselves, and what became of each one's firings
places                         runs of workflows with `concurrency`, in line or under way
signals                        what was sent to a run by name, and the step that took it
cached_results                 results of steps with `cache`, by what was called
events                         append-only history, numbered per run
payloads                       large JSON values by content hash, stored once
requests                       the ledger: one row per upstream attempt, intent first
kept_answers                   answers by the Idempotency-Key of their request, for a day
cached_answers                 chat answers that are used again, by what was asked
api_keys                       who may call, hashed, and each key's limits
pruned_calls                   sums of deleted ledger rows, so that no counter of /metrics ever falls
budgets, alerts                limits on spending; each threshold and each unknown price that was told, once a period
deliveries, delivery_attempts  outgoing webhooks and each try (webhook_tables.py)
workers, provider_health       living processes and their leases; upstream models that rest after failures
settings                       values shared by all processes, such as the webhook secret made at first start
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    Float,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from engine.store.call_sums import PRUNED_BUCKETS, PRUNED_COUNTS, PRUNED_LABELS, PRUNED_TIMES
from engine.store.metadata import metadata as metadata
from engine.store.partial_index import ACTIVE, READY, SCHEDULED_OPEN, SUSPECT, UNSETTLED, naming, where
from engine.store.readable_time import readable
from engine.store.webhook_tables import deliveries as deliveries
from engine.store.webhook_tables import delivery_attempts as delivery_attempts

workflows = Table(
    "workflows",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("config_yaml", Text, nullable=False),
    Column("version_id", String(36), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    readable("created_at", "created_us"),
    readable("updated_at", "updated_us"),
)

workflow_versions = Table(
    "workflow_versions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("version", Integer),  # null: an inline definition, stored for its run alone
    Column("digest", String(64), nullable=False),
    Column("origin", String(20), nullable=False),  # api | file | shipped | inline
    Column("config_yaml", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("name", "version"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("workflow_name", String(200), nullable=False),
    Column("version_id", String(36), ForeignKey("workflow_versions.id"), nullable=False),
    Column("version", Integer),
    Column("status", String(20), nullable=False),
    Column("priority", String(10), nullable=False),
    Column("input_json", Text),
    Column("input_digest", String(64)),
    Column("output_json", Text),
    Column("output_digest", String(64)),
    Column("error_step", Text),
    Column("error_class", String(30)),
    Column("error_message", Text),
    Column("pause_reason", String(30)),
    Column("budget_picousd", BigInteger),
    Column("tags_json", Text, nullable=False),
    Column("webhook_url", Text),
    Column("idempotency_key", String(255), unique=True),
    Column("idempotency_hash", String(64)),
    Column("key_id", String(36)),
    Column("request_id", String(64)),
    Column("open_steps", Integer, nullable=False),  # rows of steps that have not ended
    Column("event_seq", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    Column("deadline_us", BigInteger),
    Column("start_us", BigInteger),  # asked for by the submission; no step is ready before
    Column("phase", String(10)),  # on_failure | finally; null: the main steps
    Column("retries", Integer),  # null: none
    Column("models_json", Text),  # of a fork: models that replace those of the definition, by step path
    Column("forked_from", String(36)),
    Column("parent_run_id", String(36)),
    Column("parent_step_id", String(36)),  # the `workflow` step that this run was started by
    Column("answers_to", String(36)),  # the same, for as long as that step has not been told of the end
    Column("depth", Integer),  # how many runs are above this one; null: none
    Column("schedule_id", String(36)),  # the schedule that started it, and the due time that it was started for
    Column("scheduled_us", BigInteger),
    Column("trace_context", String(55)),  # W3C `traceparent` of what submitted it; null: nobody traced that
    Column("pruning_us", BigInteger),  # since when its rows are being deleted: nobody sees it any more
    Index(None, "status", "id"),
    Index(None, "workflow_name", "id"),
    Index(None, "deadline_us"),
    Index(None, "request_id"),
    Index("ix_runs_parent", "parent_run_id", "parent_step_id", **where("parent_run_id IS NOT NULL")),
    Index("ix_runs_answers_to", "answers_to", **where("answers_to IS NOT NULL")),
    # Each firing is one run.
    Index("uq_runs_firing", "schedule_id", "scheduled_us", unique=True, **where("schedule_id IS NOT NULL")),
    Index("ix_runs_scheduled_open", "schedule_id", **where(SCHEDULED_OPEN)),
    # What retention looks for: old runs, definitions of their own, and which rows name a payload.
    Index("ix_runs_finished_us", "finished_us", **where("finished_us IS NOT NULL")),
    Index("ix_runs_pruning_us", "pruning_us", **where("pruning_us IS NOT NULL")),
    Index("ix_runs_version_id", "version_id", **where("version IS NULL")),
    naming("runs", "input_digest"),
    naming("runs", "output_digest"),
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("run_id", String(36), ForeignKey("runs.id"), primary_key=True),
    Column("key", String(100), primary_key=True),
    Column("value", String(255), nullable=False),
    Index(None, "key", "value", "run_id"),
)

steps = Table(
    "steps",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("run_id", String(36), ForeignKey("runs.id"), nullable=False),
    Column("key", String(300), nullable=False),
    Column("type", String(20), nullable=False),
    Column("parent_key", String(300)),
    Column("branch", String(100)),  # of a container: the branch it chose
    Column("waits_for", String(120)),  # timer | children | run | signal:NAME; null: a retry or a start time
    # of a foreach its items, of an item its value; of an agent its tools, of its calls what they ask
    Column("input_json", Text),
    Column("input_digest", String(64)),
    Column("size", Integer),  # of a foreach: how many items
    # items, iterations or turns started so far; of a turn its calls; of a call 1: approved
    Column("progress", Integer),
    Column("position", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    Column("workflow_name", String(200)),  # of its run; null: stored by a release before
    Column("priority", String(10), nullable=False),
    Column("waiting_on", Integer, nullable=False),  # needs (or children) that have not ended
    Column("attempt", Integer, nullable=False),  # claims so far; the fence
    Column("tries", Integer, nullable=False),  # failures that count against the retry policy
    Column("losses", Integer, nullable=False),  # attempts lost with their worker
    Column("worker_id", String(36)),
    Column("due_us", BigInteger),  # ready: since when; waiting: until when
    Column("output_json", Text),
    Column("output_digest", String(64)),
    Column("model", String(200)),
    Column("error_class", String(30)),
    Column("error_message", Text),
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    UniqueConstraint("run_id", "key"),
    Index(None, "status", "due_us"),
    Index(None, "worker_id", "status"),
    Index("ix_steps_children", "run_id", "parent_key", **where("parent_key IS NOT NULL")),
    Index("ix_steps_waits_for", "run_id", "waits_for", **where("waits_for IS NOT NULL")),
    Index("ix_steps_active", "run_id", **where(ACTIVE)),
    Index("ix_steps_suspect", "due_us", **where(SUSPECT.replace("steps.", ""))),
    Index("ix_steps_ready", "priority", "workflow_name", "due_us", **where(READY)),
    naming("steps", "input_digest"),
    naming("steps", "output_digest"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(220), nullable=False, unique=True),
    Column("workflow_name", String(200), nullable=False),
    Column("origin", String(20), nullable=False),  # http | definition
    Column("cron", String(200), nullable=False),
    Column("zone", String(60), nullable=False),
    Column("overlap", String(10), nullable=False),
    Column("catch_up", Integer, nullable=False),
    Column("input_json", Text, nullable=False),
    Column("tags_json", Text, nullable=False),
    Column("priority", String(10), nullable=False),
    Column("budget_picousd", BigInteger),
    Column("key_id", String(36)),  # the API key that asked for it; its runs count as that key's
    Column("enabled", Boolean, nullable=False),
    Column("next_us", BigInteger),  # null: not enabled, paused, or it never comes again
    Column("backlog_json", Text),  # due times that wait for the end of the run before; null: none
    Column("last_due_us", BigInteger),
    Column("last_run_id", String(36)),
    Column("fired", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),  # the run before was under way
    Column("missed", Integer, nullable=False),  # nobody was there to start them, and catch_up did not reach them
    Column("failed", Integer, nullable=False),  # no run could be started
    Column("error_message", Text),  # of the newest firing, where it failed
    Column("error_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("paused_us", BigInteger),  # since when, by a person; stays through new versions of a definition
    Index(None, "next_us"),
    Index(None, "workflow_name"),
)

places = Table(
    "places",
    metadata,
    Column("run_id", String(36), ForeignKey("runs.id"), primary_key=True),
    Column("line", String(310), nullable=False),  # the workflow's name, with the key where there is one
    Column("rank", Integer, nullable=False),  # of the priority: 0 comes first
    Column("most", Integer, nullable=False),  # places in all, as the run's own version of the definition says
    Column("from_us", BigInteger, nullable=False),  # not under way before
    Column("since_us", BigInteger),  # under way since; null: in line
    Index("ix_places_in_line", "line", "rank", "run_id", **where("since_us IS NULL")),
    Index("ix_places_under_way", "line", **where("since_us IS NOT NULL")),
)

signals = Table(
    "signals",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("run_id", String(36), ForeignKey("runs.id"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("payload_json", Text),
    Column("payload_digest", String(64)),
    Column("taken_by", String(300)),  # the key of the step that took it; null: it came early
    Column("created_us", BigInteger, nullable=False),
    Index(None, "run_id", "name"),
    naming("signals", "payload_digest"),
)

cached_results = Table(
    "cached_results",
    metadata,
    Column("digest", String(64), primary_key=True),  # of the step's type and its rendered fields
    Column("output_json", Text),
    Column("output_digest", String(64)),
    Column("model", String(200)),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Index(None, "expires_us"),
    naming("cached_results", "output_digest"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("step_id", String(36), ForeignKey("steps.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("status", String(20), nullable=False),
    Column("worker_id", String(36), nullable=False),
    Column("error_class", String(30)),
    Column("error_message", Text),
    Column("started_us", BigInteger, nullable=False),
    Column("finished_us", BigInteger),
)

events = Table(
    "events",
    metadata,
    Column("run_id", String(36), ForeignKey("runs.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("type", String(40), nullable=False),
    Column("step_key", String(300)),
    Column("attempt", Integer),
    Column("at_us", BigInteger, nullable=False),
    Column("data_json", Text),
)

payloads = Table(
    "payloads",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("body", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("request_id", String(64), nullable=False),
    Column("started_us", BigInteger, nullable=False),
    readable("timestamp", "started_us"),
    Column("workflow_name", String(200)),
    Column("run_id", String(36)),
    Column("step_id", String(300)),  # the step's key within its run
    Column("attempt", Integer),
    Column("worker_id", String(36), nullable=False),  # whose death makes an open intent `unknown`
    Column("kind", String(20), nullable=False),
    Column("provider", String(100), nullable=False),
    Column("model", String(200), nullable=False),
    Column("requested_model", String(200), nullable=False),
    Column("key_id", String(36)),
    Column("tags", Text, nullable=False),
    Column("status", String(20), nullable=False),  # started | succeeded | failed | unknown
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("cache_write_1h_tokens", BigInteger),  # of those, what is kept for an hour
    Column("reasoning_tokens", BigInteger),
    Column("cost_picousd", BigInteger),
    Column("cost_usd", Numeric(24, 12), Computed("cost_picousd / 1000000000000.0", persisted=True)),
    Column("cost_source", String(20), nullable=False),
    # what an answer from the cache would have cost; null: unknown, or no such answer
    Column("saved_picousd", BigInteger),
    Column("reserved_picousd", BigInteger),
    Column("reserved_tokens", BigInteger),
    Column("latency_ms", Float),
    Column("ttft_ms", Float),
    Column("streamed", Boolean, nullable=False),
    Column("success", Boolean),
    Column("status_code", Integer),
    Column("error_class", String(30)),
    Column("error", Text),
    Column("finished_us", BigInteger),
    Index(None, "started_us"),
    Index("ix_requests_run_id_step_id", "run_id", "step_id", **where("run_id IS NOT NULL")),
    Index(None, "request_id"),
    # What a key used within the last minute.
    Index("ix_requests_key_id_started_us", "key_id", "started_us", **where("key_id IS NOT NULL")),
    # Few rows at any time: what budgets count as reserved.
    Index("ix_requests_unsettled", "started_us", **where(UNSETTLED)),
)

kept_answers = Table(
    "kept_answers",
    metadata,
    Column("digest", String(64), primary_key=True),  # of the caller and its Idempotency-Key
    Column("fingerprint", String(64), nullable=False),  # of the request
    Column("owner", String(36), nullable=False),  # the process that answers it; when that dies, the claim is void
    Column("request_id", String(64), nullable=False),
    Column("status_code", Integer),  # null: under way
    Column("headers_json", Text),
    Column("body", Text),  # null behind an answer: it was too large
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Index(None, "expires_us"),
)

cached_answers = Table(
    "cached_answers",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("answer_json", Text, nullable=False),
    Column("provider", String(100), nullable=False),
    Column("model", String(200), nullable=False),
    Column("cost_picousd", BigInteger),  # what it cost when it was paid for; null: unknown
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Index(None, "expires_us", "size_bytes"),  # holds all that its size is summed from
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of the secret, in hexadecimal
    Column("prefix", String(20), nullable=False),  # the secret's first characters, for people to tell keys apart
    Column("admin", Boolean, nullable=False),  # may make and revoke keys and set budgets
    Column("allowed_models_json", Text),  # null: all
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("max_parallel", Integer),
    Column("created_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger),
    Index(None, "name"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("origin", String(10), nullable=False),  # config | http | key
    Column("scope", String(20), nullable=False),
    Column("subject", String(300)),
    Column("target", String(330), nullable=False),  # `all`, or scope:subject, by which a call finds its budgets
    Column("limit_picousd", BigInteger, nullable=False),
    Column("period", String(10), nullable=False),
    Column("zone", String(60), nullable=False),
    Column("action", String(10), nullable=False),
    Column("alert_at_json", Text, nullable=False),  # thresholds in hundredths of a percent of the limit
    Column("period_start_us", BigInteger, nullable=False),
    Column("resets_us", BigInteger),
    Column("settled_picousd", BigInteger, nullable=False),  # sum of the period's settled rows, kept with each of them
    Column("resum_us", BigInteger),  # when that sum is to be taken anew from the rows
    Column("alerted", Integer, nullable=False),  # the highest threshold that was told in this period
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Index(None, "target"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("budget_id", String(36), primary_key=True),
    Column("period_start_us", BigInteger, primary_key=True),
    Column("threshold", Integer, primary_key=True),
    Column("data_json", Text, nullable=False),  # the budget as it stood
    Column("at_us", BigInteger, nullable=False),
    Column("told_us", BigInteger),  # when it went into the log and the webhook's outbox
    Index("ix_alerts_untold", "at_us", **where("told_us IS NULL")),
)

provider_health = Table(
    "provider_health",
    metadata,
    Column("provider", String(100), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("since_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("trips", Integer, nullable=False),  # rests without a success between them
    Column("error_class", String(30), nullable=False),
    Column("error", Text, nullable=False),
    Column("probe_until_us", BigInteger),  # until when one caller tries it again; null: nobody does
)

pruned_calls = Table(
    "pruned_calls",
    metadata,
    *(Column(name, String(255), primary_key=True) for name in PRUNED_LABELS),
    *(Column(name, Integer, primary_key=True, autoincrement=False) for name in PRUNED_BUCKETS),
    *(Column(name, BigInteger, nullable=False) for name in PRUNED_COUNTS),
    *(Column(name, Float, nullable=False) for name in PRUNED_TIMES),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(10), nullable=False),  # worker | api
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("lease_until_us", BigInteger, nullable=False),
    Index(None, "lease_until_us"),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)
