"""Replays, the pause, and the story of a run: by which model and prompts, through which steps, to which offsets."""

from __future__ import annotations

from alembic import op

from consumer.postgres.visitors import hide_table

revision = "full_pass_0002"
down_revision = "full_pass_0001"
branch_labels = None
depends_on = None

OWN_TABLES = ("full_pass_replays", "full_pass_pause")

CREATE = """
ALTER TABLE full_pass_runs ADD COLUMN model text, ADD COLUMN prompt_version integer,
    ADD COLUMN story jsonb NOT NULL DEFAULT '[]', ALTER COLUMN traceparent
    SET DEFAULT '00-00000000000000000000000000000001-0000000000000001-00';
CREATE INDEX full_pass_runs_replayed ON full_pass_runs (generation, status) WHERE generation > 0;

ALTER TABLE full_pass_outbox ADD COLUMN kafka_partition integer, ADD COLUMN kafka_offset bigint;

CREATE TABLE full_pass_replays (
    generation bigint PRIMARY KEY,
    source text NOT NULL CONSTRAINT full_pass_replays_source CHECK (source IN ('topic', 'ledger')),
    selection jsonb NOT NULL,
    state text NOT NULL DEFAULT 'running'
        CONSTRAINT full_pass_replays_state CHECK (state IN ('running', 'budget_spent', 'cancelled')),
    max_cost_usd numeric,
    cost_usd numeric NOT NULL DEFAULT 0,
    passed_over integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    filled_at timestamptz,
    cancelled_at timestamptz
);

CREATE TABLE full_pass_pause (
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT full_pass_pause_one CHECK (one),
    paused_at timestamptz NOT NULL DEFAULT now(),
    reason text
);
"""


def upgrade() -> None:
    """Add; nothing that an older worker uses changes, so both versions work side by side."""
    for statement in filter(None, (part.strip() for part in CREATE.split(";"))):
        op.execute(statement)
    for table in OWN_TABLES:
        for statement in hide_table(table):
            op.execute(statement)


def downgrade() -> None:
    """Remove what this revision made."""
    for table in reversed(OWN_TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP INDEX full_pass_runs_replayed")
    op.execute("ALTER TABLE full_pass_outbox DROP COLUMN kafka_partition, DROP COLUMN kafka_offset")
    op.execute(
        "ALTER TABLE full_pass_runs DROP COLUMN model, DROP COLUMN prompt_version, DROP COLUMN story,"
        " ALTER COLUMN traceparent DROP DEFAULT"
    )
