"""Nobody but our own role sees our tables: hosted PostgreSQL puts an HTTP API for `anon` and `authenticated` before `public`."""

from __future__ import annotations

_REVOKE = """
DO $$ DECLARE visitor text; BEGIN
    REVOKE ALL ON {thing} FROM PUBLIC;
    FOR visitor IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON {thing} FROM %I', visitor);
    END LOOP;
END $$
"""


def hide_table(table: str) -> tuple[str, str]:
    """The statements that enable row-level security on a table of ours and take every right from visitors."""
    return f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", _REVOKE.format(thing=table)


def hide_sequence(sequence: str) -> str:
    """The statement that takes every right on a sequence of ours from visitors."""
    return _REVOKE.format(thing=f"SEQUENCE {sequence}")
