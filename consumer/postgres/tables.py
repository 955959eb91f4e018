"""The tables, as the code sees them. Migrations make them; a test compares the two.

`full_pass_*` are this service's own. `user_profiles` and `conversation_chunks` belong to the application; here stand
the columns that this service reads and writes, and the application may have more.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

UNTRACED = "00-00000000000000000000000000000001-0000000000000001-00"
"""A `traceparent` of no trace, not sampled: of runs that somebody inserts by hand."""

metadata = MetaData()
application_metadata = MetaData()

_Moment = DateTime(timezone=True)

generation_sequence = Sequence("full_pass_generation_seq", metadata=metadata, start=1)
"""Every replay and every retry takes one number; generation 0 is live traffic."""

runs = Table(
    "full_pass_runs",
    metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False, server_default=text("'pending'")),
    Column("stage", Text, nullable=False, server_default=text("'starting'")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("priority", SmallInteger, nullable=False, server_default=text("0")),
    Column("due_at", _Moment, nullable=False, server_default=func.now()),
    Column("held_up_since", _Moment),
    Column("lease_until", _Moment),
    Column("completed_at", _Moment, nullable=False),
    Column("event", JSONB, nullable=False),
    Column("traceparent", Text, nullable=False, server_default=UNTRACED),
    Column("memory_saved_at", _Moment),
    Column("profile_version", BigInteger),
    Column("coverage", Double),
    Column("model_calls", Integer, nullable=False, server_default=text("0")),
    Column("input_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("output_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("cost_usd", Numeric, server_default=text("0")),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("created_at", _Moment, nullable=False, server_default=func.now()),
    Column("started_at", _Moment),
    Column("finished_at", _Moment),
    Column("model", Text),
    Column("prompt_version", Integer),
    Column("story", JSONB, nullable=False, server_default=text("'[]'")),
    CheckConstraint("status IN ('pending', 'running', 'completed', 'failed')", name="full_pass_runs_status"),
    UniqueConstraint("user_id", "idempotency_key", "generation", name="full_pass_runs_once"),
)
Index(
    "full_pass_runs_one_open",
    runs.c.user_id,
    runs.c.idempotency_key,
    unique=True,
    postgresql_where=text("status IN ('pending', 'running')"),
)
Index("full_pass_runs_one_running", runs.c.user_id, unique=True, postgresql_where=text("status = 'running'"))
Index("full_pass_runs_due", runs.c.priority, runs.c.due_at, postgresql_where=text("status = 'pending'"))
Index("full_pass_runs_due_at", runs.c.due_at, postgresql_where=text("status = 'pending'"))
Index("full_pass_runs_leases", runs.c.lease_until, postgresql_where=text("status = 'running'"))
Index("full_pass_runs_pending_of_user", runs.c.user_id, postgresql_where=text("status = 'pending'"))
Index("full_pass_runs_created", runs.c.created_at)
Index("full_pass_runs_replayed", runs.c.generation, runs.c.status, postgresql_where=text("generation > 0"))

outbox = Table(
    "full_pass_outbox",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("event_id", Uuid, nullable=False, unique=True),
    Column("event_type", Text, nullable=False),
    Column("run_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("data", Text, nullable=False),
    Column("traceparent", Text, nullable=False),
    Column("occurred_at", _Moment, nullable=False),
    Column("published_at", _Moment),
    Column("kafka_partition", Integer),
    Column("kafka_offset", BigInteger),
)
Index("full_pass_outbox_unpublished", outbox.c.id, postgresql_where=text("published_at IS NULL"))
Index(
    "full_pass_outbox_one_end",
    outbox.c.run_id,
    unique=True,
    postgresql_where=text("event_type IN ('v2-completed', 'v2-failed')"),
)
Index("full_pass_outbox_user", outbox.c.user_id)
Index("full_pass_outbox_published", outbox.c.published_at, postgresql_where=text("published_at IS NOT NULL"))

model_calls = Table(
    "full_pass_model_calls",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("request_sha256", Text, primary_key=True),
    Column("run_id", Uuid, ForeignKey("full_pass_runs.run_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("stop_reason", Text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_usd", Numeric),
    Column("verdict", Text),
    Column("created_at", _Moment, nullable=False, server_default=func.now()),
)
Index("full_pass_model_calls_created", model_calls.c.created_at)

spend = Table(
    "full_pass_spend",
    metadata,
    Column("hour", _Moment, primary_key=True),
    Column("cost_usd", Numeric, nullable=False, server_default=text("0")),
)

forgotten = Table(
    "full_pass_forgotten",
    metadata,
    Column("user_sha256", LargeBinary, primary_key=True),
    Column("forgotten_at", _Moment, nullable=False, server_default=func.now()),
    Column("profile_version", BigInteger, nullable=False, server_default=text("0")),
)

replays = Table(
    "full_pass_replays",
    metadata,
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("source", Text, nullable=False),
    Column("selection", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'running'")),
    Column("max_cost_usd", Numeric),
    Column("cost_usd", Numeric, nullable=False, server_default=text("0")),
    Column("passed_over", Integer, nullable=False, server_default=text("0")),
    Column("created_at", _Moment, nullable=False, server_default=func.now()),
    Column("filled_at", _Moment),
    Column("cancelled_at", _Moment),
    CheckConstraint("source IN ('topic', 'ledger')", name="full_pass_replays_source"),
    CheckConstraint("state IN ('running', 'budget_spent', 'cancelled')", name="full_pass_replays_state"),
)

pause = Table(
    "full_pass_pause",
    metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),
    Column("paused_at", _Moment, nullable=False, server_default=func.now()),
    Column("reason", Text),
    CheckConstraint("one", name="full_pass_pause_one"),
)
"""One row while an operator has the executors paused."""

user_profiles = Table(
    "user_profiles",
    application_metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("soul_md", Text),
    Column("identity_md", Text),
    Column("user_md", Text),
    Column("agents_md", Text),
    Column("tools_md", Text),
    Column("memory_md", Text),
    Column("soulprint_text", Text),
    Column("full_pass_status", Text, server_default=text("'pending'")),
    Column("full_pass_started_at", _Moment),
    Column("full_pass_completed_at", _Moment),
    Column("full_pass_error", Text),
    Column("profile_version", BigInteger, nullable=False, server_default=text("0")),
)

conversation_chunks = Table(
    "conversation_chunks",
    application_metadata,
    Column("user_id", Uuid, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("token_count", Integer, nullable=False),
    Column("chunk_index", Integer, nullable=False),
    Column("total_chunks", Integer, nullable=False),
    Column("message_count", Integer, nullable=False),
    Column("chunk_tier", Text, nullable=False),
    Column("is_recent", Boolean, nullable=False),
    Column("created_at", _Moment, nullable=False),
)
Index("conversation_chunks_full_pass_order", conversation_chunks.c.user_id, conversation_chunks.c.created_at)
