"""Whether our role may do what a worker does, asked beforehand: a grant too few shows in readiness, not in the midst of a run."""

from __future__ import annotations

from sqlalchemy import text

from consumer.postgres import tables
from consumer.postgres.database import Database

_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
NEEDED = {
    "full_pass_alembic_version": ("SELECT",),
    "full_pass_runs": _ALL,
    "full_pass_outbox": _ALL,
    "full_pass_model_calls": _ALL,
    "full_pass_spend": ("SELECT", "INSERT", "UPDATE"),
    "full_pass_forgotten": ("SELECT",),
    "full_pass_replays": ("SELECT", "UPDATE"),
    "full_pass_pause": ("SELECT",),
    "full_pass_outbox_id_seq": ("USAGE",),
    "user_profiles": ("SELECT", "UPDATE"),
    "conversation_chunks": ("SELECT", "INSERT", "DELETE"),
}
"""What a worker needs, as docs/security.md grants it. In the application's profiles, the columns of `_PROFILE` are enough."""
_PROFILE = tuple(tables.user_profiles.columns.keys())


async def missing_rights(database: Database) -> str | None:
    """What our role lacks, fit for readiness; None when it has all, or where nothing was migrated yet.

    Raises:
        DatabaseUnavailable: when PostgreSQL is away.
    """
    pairs = [(name, privilege) for name, privileges in NEEDED.items() for privilege in privileges]
    values = {
        "names": [name for name, _ in pairs],
        "privileges": [privilege for _, privilege in pairs],
        "columns": list(_PROFILE),
    }
    async with database.transaction() as transaction:
        lacking = (await transaction.execute(_LACKING, values)).scalars().all()
        hidden = (await transaction.execute(_HIDDEN, {"names": list(NEEDED)})).scalars().all()
    if lacking:
        return f"our role in PostgreSQL lacks {', '.join(lacking)}; docs/security.md has the grants"
    if hidden:
        return f"row-level security hides {', '.join(hidden)} from our role in PostgreSQL; docs/security.md has the policies"
    return None


_LACKING = text("""
    SELECT privilege || ' on ' || name
    FROM unnest(CAST(:names AS text[]), CAST(:privileges AS text[])) AS needed (name, privilege)
    JOIN pg_class thing ON thing.oid = to_regclass(name)
    WHERE to_regclass('full_pass_alembic_version') IS NOT NULL AND CASE
        WHEN thing.relkind = 'S' THEN NOT has_sequence_privilege(thing.oid, privilege)
        WHEN has_table_privilege(thing.oid, privilege) THEN false
        WHEN name <> 'user_profiles' THEN true
        ELSE EXISTS (
            SELECT FROM pg_attribute part
            WHERE part.attrelid = thing.oid AND part.attnum > 0 AND NOT part.attisdropped
              AND part.attname = ANY(CAST(:columns AS text[])) AND NOT (part.attname = 'user_id' AND privilege = 'UPDATE')
              AND NOT has_column_privilege(thing.oid, part.attnum, privilege))
    END
""")

_HIDDEN = text("""
    SELECT thing.relname
    FROM pg_class thing
    WHERE thing.oid = ANY(SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)
      AND to_regclass('full_pass_alembic_version') IS NOT NULL AND thing.relkind <> 'S' AND row_security_active(thing.oid)
      AND NOT EXISTS (
          SELECT FROM pg_policy policy
          WHERE policy.polrelid = thing.oid
            AND (0 = ANY(policy.polroles)
                 OR EXISTS (SELECT FROM unnest(policy.polroles) AS role WHERE pg_has_role(role, 'USAGE'))))
    ORDER BY thing.relname
""")
