"""Tables that belong to the application: created where there are none, and made to fit where there are.

A table that was found is altered only for a column or an index that is missing, and every such addition carries a comment, so
that a downgrade removes exactly what was added. Where this role may not, the owner's statements are collected instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from consumer.errors import CommandError
from consumer.postgres.chunk_constraints import require_room_for_chunks

ADDED = "added by full-pass"


class OwnerNeeded(CommandError):
    """The role may not do what the migration needs; `statements` are for the owner of the tables to run."""

    def __init__(self, statements: Sequence[str]) -> None:
        super().__init__(
            "this role may not change the application's tables. Let their owner run the statements above, "
            "then run 'full-pass db upgrade' again"
        )
        self.statements = tuple(statements)


@dataclass(frozen=True)
class ApplicationTable:
    """What this service needs of a table. `columns`: name → definition; `kept` are never dropped."""

    name: str
    columns: Mapping[str, str]
    required: tuple[str, ...]
    kept: tuple[str, ...]
    index: tuple[str, tuple[str, ...]]
    privileges: tuple[str, ...]


USER_PROFILES = ApplicationTable(
    name="user_profiles",
    columns={
        "user_id": "uuid PRIMARY KEY",
        "soul_md": "text",
        "identity_md": "text",
        "user_md": "text",
        "agents_md": "text",
        "tools_md": "text",
        "memory_md": "text",
        "soulprint_text": "text",
        "full_pass_status": "text DEFAULT 'pending'",
        "full_pass_started_at": "timestamptz",
        "full_pass_completed_at": "timestamptz",
        "full_pass_error": "text",
        "profile_version": "bigint NOT NULL DEFAULT 0",
    },
    required=("user_id",),
    kept=("profile_version",),
    index=("user_profiles_full_pass_user", ("user_id",)),
    privileges=("SELECT", "UPDATE"),
)

CONVERSATION_CHUNKS = ApplicationTable(
    name="conversation_chunks",
    columns={
        "user_id": "uuid NOT NULL",
        "conversation_id": "text NOT NULL",
        "title": "text NOT NULL",
        "content": "text NOT NULL",
        "token_count": "integer NOT NULL",
        "chunk_index": "integer NOT NULL",
        "total_chunks": "integer NOT NULL",
        "message_count": "integer NOT NULL",
        "chunk_tier": "text NOT NULL",
        "is_recent": "boolean NOT NULL",
        "created_at": "timestamptz NOT NULL",
    },
    required=("user_id", "content"),
    kept=(),
    index=("conversation_chunks_full_pass_order", ("user_id", "created_at")),
    privileges=("SELECT", "INSERT", "DELETE"),
)

APPLICATION_TABLES = (USER_PROFILES, CONVERSATION_CHUNKS)


@dataclass(frozen=True)
class _Found:
    oid: int
    schema: str
    owned: bool
    columns: frozenset[str]
    indexed: bool
    granted: bool
    hidden: bool


def require_owner(connection: Connection) -> None:
    """Make sure, before anything is changed, that this role may do all that `fit` and the migrations will do.

    Raises:
        OwnerNeeded: with all the statements that the owner has to run.
        CommandError: when a table lacks a column without which its rows mean something else.
    """
    needed = _schema_statements(connection)
    for table in APPLICATION_TABLES:
        there = _look(connection, table)
        if there is not None and not there.owned:
            needed += _owner_statements(connection, table, there)
    if needed:
        raise OwnerNeeded(needed)


def fit(connection: Connection) -> None:
    """Create or complete the tables.

    Raises:
        CommandError: before anything is changed, when a table asks more of its rows than this service's can give.
    """
    require_room_for_chunks(connection, CONVERSATION_CHUNKS.columns)
    for table in APPLICATION_TABLES:
        there = _look(connection, table)
        if there is not None and not there.owned:
            continue  # complete already, or `require_owner` would have stopped us
        for statement in _creation(table) if there is None else _completion(table, there):
            connection.execute(text(statement))
        if there is None:
            connection.execute(text(_SHIELD.format(table=table.name)))


def unfit(connection: Connection) -> None:
    """Drop the columns and indexes that `fit` added to tables that it found."""
    for table in APPLICATION_TABLES:
        there = _look(connection, table)
        if there is None:
            continue
        added = connection.execute(_ADDED_COLUMNS, {"oid": there.oid, "mark": ADDED}).scalars().all()
        dropped = [f'DROP INDEX "{there.schema}".{name}' for name in _added_indexes(connection, there.oid)]
        dropped += [_alter(table, there, f"DROP COLUMN {name}") for name in added if name not in table.kept]
        for statement in dropped:
            connection.execute(text(statement))


def _look(connection: Connection, table: ApplicationTable) -> _Found | None:
    row = connection.execute(_TABLE, {"name": table.name}).one_or_none()
    if row is None:
        return None
    columns = frozenset(connection.execute(_COLUMNS, {"oid": row.oid}).scalars())
    lost = [name for name in table.required if name not in columns]
    if lost:
        raise CommandError(f"the table {table.name} exists without the column {lost[0]}: is it another application's?")
    leading = [tuple(names) for (names,) in connection.execute(_INDEXES, {"oid": row.oid})]
    width = len(table.index[1])
    granted = connection.execute(_GRANTED, {"oid": row.oid, "privileges": list(table.privileges)}).scalar_one()
    indexed = any(names[:width] == table.index[1] for names in leading)
    return _Found(row.oid, row.schema, row.owned, columns, indexed, granted, row.hidden)


def _creation(table: ApplicationTable) -> list[str]:
    body = ", ".join(f"{name} {definition}" for name, definition in table.columns.items())
    statements = [f"CREATE TABLE {table.name} ({body})"]
    if not any("PRIMARY KEY" in definition for definition in table.columns.values()):
        statements.append(f"CREATE INDEX {table.index[0]} ON {table.name} ({', '.join(table.index[1])})")
    return statements


def _completion(table: ApplicationTable, found: _Found, *, mark: bool = True) -> list[str]:
    statements = []
    for name, definition in table.columns.items():
        if name not in found.columns:
            statements.append(_alter(table, found, f"ADD COLUMN IF NOT EXISTS {name} {_for_old_rows(definition)}"))
            if mark:
                statements.append(f"COMMENT ON COLUMN \"{found.schema}\".{table.name}.{name} IS '{ADDED}'")
    if not found.indexed:
        name, columns = table.index
        statements.append(f'CREATE INDEX IF NOT EXISTS {name} ON "{found.schema}".{table.name} ({", ".join(columns)})')
        if mark:
            statements.append(f"COMMENT ON INDEX \"{found.schema}\".{name} IS '{ADDED}'")
    return statements


def _for_old_rows(definition: str) -> str:
    """Rows that are there already have no value for a new column, so it can't be NOT NULL without a default."""
    return definition if "DEFAULT" in definition else definition.replace(" NOT NULL", "")


def _alter(table: ApplicationTable, found: _Found, change: str) -> str:
    return f'ALTER TABLE "{found.schema}".{table.name} {change}'


def _schema_statements(connection: Connection) -> list[str]:
    row = connection.execute(_SCHEMA).one()
    if row.may_create:
        return []
    return [f'GRANT USAGE, CREATE ON SCHEMA "{row.schema}" TO {row.role};']


def _owner_statements(connection: Connection, table: ApplicationTable, found: _Found) -> list[str]:
    role = connection.execute(_SCHEMA).one().role
    name = f'"{found.schema}".{table.name}'
    statements = [f"{statement};" for statement in _completion(table, found, mark=False)]
    if not found.granted:
        statements.append(f"GRANT {', '.join(table.privileges)} ON {name} TO {role};")
    if "INSERT" in table.privileges:
        statements += [
            f"GRANT USAGE ON SEQUENCE {sequence} TO {role};"
            for sequence in connection.execute(_SEQUENCES, {"oid": found.oid}).scalars()
        ]
    if found.hidden:
        statements.append(f"CREATE POLICY full_pass ON {name} TO {role} USING (true) WITH CHECK (true);")
    return statements


def _added_indexes(connection: Connection, oid: int) -> Sequence[str]:
    return connection.execute(_ADDED_INDEXES, {"oid": oid, "mark": ADDED}).scalars().all()


# Hosted PostgreSQL gives what is new in `public` to the visitors of its HTTP API, who would read everybody's MEMORY. Elsewhere a
# table that the application will use is left as open as its owner's default privileges make it.
_SHIELD = """
DO $$ DECLARE visitor text; BEGIN
    FOR visitor IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
        REVOKE ALL ON {table} FROM PUBLIC;
        EXECUTE format('REVOKE ALL ON {table} FROM %I', visitor);
    END LOOP;
END $$
"""

_TABLE = text("""
    SELECT c.oid, n.nspname AS schema, pg_has_role(c.relowner, 'USAGE') AS owned,
           row_security_active(c.oid) AND NOT EXISTS (
               SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'full_pass') AS hidden
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(:name) AND c.relkind IN ('r', 'p')
""")

_COLUMNS = text("SELECT attname FROM pg_attribute WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped")

_INDEXES = text("""
    SELECT array_agg(a.attname::text ORDER BY k.place)
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = :oid AND i.indpred IS NULL AND i.indisvalid GROUP BY i.indexrelid
""")

_GRANTED = text("""
    SELECT bool_and(has_table_privilege(CAST(:oid AS oid), privilege))
    FROM unnest(CAST(:privileges AS text[])) AS privilege
""")

_SCHEMA = text("""
    SELECT current_schema() AS schema, quote_ident(current_user) AS role,
           has_schema_privilege(current_schema(), 'CREATE') AS may_create
""")

_SEQUENCES = text("""
    SELECT s.oid::regclass::text FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
    WHERE d.refobjid = :oid AND d.deptype = 'a'
      AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') ELSE false END
""")

_ADDED_COLUMNS = text("""
    SELECT attname FROM pg_attribute
    WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) = :mark
""")

_ADDED_INDEXES = text("""
    SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = :oid AND obj_description(c.oid, 'pg_class') = :mark
""")
