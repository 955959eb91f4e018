"""Ledger, outbox, recorded answers, spend and the forgotten; and the two application tables, made or made to fit."""

from __future__ import annotations

from alembic import op

from consumer.postgres.application_tables import fit, unfit
from consumer.postgres.visitors import hide_sequence, hide_table

revision = "full_pass_0001"
down_revision = None
branch_labels = None
depends_on = None

OWN_TABLES = ("full_pass_runs", "full_pass_outbox", "full_pass_model_calls", "full_pass_spend", "full_pass_forgotten")

CREATE = """
CREATE SEQUENCE full_pass_generation_seq START 1;

CREATE TABLE full_pass_runs (
    run_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    idempotency_key text NOT NULL,
    generation bigint NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'pending'
        CONSTRAINT full_pass_runs_status CHECK (status IN ('pending', 'running', 'completed', 'failed')),
    stage text NOT NULL DEFAULT 'starting',
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    priority smallint NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    held_up_since timestamptz,
    lease_until timestamptz,
    completed_at timestamptz NOT NULL,
    event jsonb NOT NULL,
    traceparent text NOT NULL,
    memory_saved_at timestamptz,
    profile_version bigint,
    coverage double precision,
    model_calls integer NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cost_usd numeric DEFAULT 0,
    error_code text,
    error_detail text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT full_pass_runs_once UNIQUE (user_id, idempotency_key, generation)
);
CREATE UNIQUE INDEX full_pass_runs_one_open ON full_pass_runs (user_id, idempotency_key)
    WHERE status IN ('pending', 'running');
CREATE UNIQUE INDEX full_pass_runs_one_running ON full_pass_runs (user_id) WHERE status = 'running';
CREATE INDEX full_pass_runs_due ON full_pass_runs (priority, due_at) WHERE status = 'pending';
CREATE INDEX full_pass_runs_due_at ON full_pass_runs (due_at) WHERE status = 'pending';
CREATE INDEX full_pass_runs_leases ON full_pass_runs (lease_until) WHERE status = 'running';
CREATE INDEX full_pass_runs_pending_of_user ON full_pass_runs (user_id) WHERE status = 'pending';
CREATE INDEX full_pass_runs_created ON full_pass_runs (created_at);

CREATE TABLE full_pass_outbox (
    id bigserial PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    event_type text NOT NULL,
    run_id uuid NOT NULL,
    user_id uuid NOT NULL,
    data text NOT NULL,
    traceparent text NOT NULL,
    occurred_at timestamptz NOT NULL,
    published_at timestamptz
);
CREATE INDEX full_pass_outbox_unpublished ON full_pass_outbox (id) WHERE published_at IS NULL;
CREATE UNIQUE INDEX full_pass_outbox_one_end ON full_pass_outbox (run_id) WHERE event_type IN ('v2-completed', 'v2-failed');
CREATE INDEX full_pass_outbox_user ON full_pass_outbox (user_id);
CREATE INDEX full_pass_outbox_published ON full_pass_outbox (published_at) WHERE published_at IS NOT NULL;

CREATE TABLE full_pass_model_calls (
    user_id uuid NOT NULL,
    request_sha256 text NOT NULL,
    run_id uuid NOT NULL REFERENCES full_pass_runs ON DELETE CASCADE,
    kind text NOT NULL,
    model text NOT NULL,
    content text NOT NULL,
    stop_reason text,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cost_usd numeric,
    verdict text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, request_sha256)
);
CREATE INDEX ix_full_pass_model_calls_run_id ON full_pass_model_calls (run_id);
CREATE INDEX full_pass_model_calls_created ON full_pass_model_calls (created_at);

CREATE TABLE full_pass_spend (
    hour timestamptz PRIMARY KEY,
    cost_usd numeric NOT NULL DEFAULT 0
);

CREATE TABLE full_pass_forgotten (
    user_sha256 bytea PRIMARY KEY,
    forgotten_at timestamptz NOT NULL DEFAULT now(),
    profile_version bigint NOT NULL DEFAULT 0
);
"""


def upgrade() -> None:
    """Make this service's tables, and the application's two fit."""
    fit(op.get_bind())
    for statement in filter(None, (part.strip() for part in CREATE.split(";"))):
        op.execute(statement)
    for table in (*OWN_TABLES, "full_pass_alembic_version"):
        for statement in hide_table(table):
            op.execute(statement)
    for sequence in ("full_pass_generation_seq", "full_pass_outbox_id_seq"):
        op.execute(hide_sequence(sequence))


def downgrade() -> None:
    """Remove what this service made. The two application tables stay, and so does `profile_version`: readers compare it."""
    for table in reversed(OWN_TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP SEQUENCE full_pass_generation_seq")
    unfit(op.get_bind())
