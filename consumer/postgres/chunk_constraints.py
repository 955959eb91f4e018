"""What a found `conversation_chunks` may ask of its rows, and what the rows of this service can't give."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, text

from consumer.errors import CommandError

CHUNK_KEY = ("user_id", "conversation_id", "chunk_index")
"""A unique key over these is let be: only an export in which two conversations have one id would meet it."""


def require_room_for_chunks(connection: Connection, written: Collection[str]) -> None:
    """Make sure that rows with the columns `written` can be kept in the table, if there is one already.

    Raises:
        CommandError: naming the column without a value, or the unique key that rows would share.
    """
    values = {"written": list(written), "key": list(CHUNK_KEY)}
    for column in connection.execute(_UNFILLED, values).scalars():
        raise CommandError(
            f"the table conversation_chunks wants a value in {column}, which this service's rows don't have: "
            "give the column a default, or drop its NOT NULL"
        )
    for name, columns in connection.execute(_SHARED, values):
        raise CommandError(
            f"the table conversation_chunks has the unique key {name} ({', '.join(columns)}), in which rows of this service "
            f"would be the same: drop it, or let it hold {', '.join(CHUNK_KEY)}"
        )


_UNFILLED = text("""
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass('conversation_chunks') AND attnum > 0 AND NOT attisdropped
      AND attnotnull AND NOT atthasdef AND attidentity = '' AND NOT attname = ANY(CAST(:written AS text[]))
    ORDER BY attnum LIMIT 1
""")

# A column that we don't write keeps rows apart if it is empty, or filled by a function, such as a sequence's or a random one.
_SHARED = text("""
    SELECT i.indexrelid::regclass::text, array_agg(coalesce(a.attname::text, 'an expression') ORDER BY k.place)
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = i.indrelid AND d.adnum = k.attnum
    WHERE i.indrelid = to_regclass('conversation_chunks') AND i.indisunique AND k.place <= i.indnkeyatts
    GROUP BY i.indexrelid
    HAVING bool_and(a.attname IS NULL OR a.attname = ANY(CAST(:written AS text[]))
                    OR (a.attidentity = '' AND pg_get_expr(d.adbin, d.adrelid) NOT LIKE '%(%'))
       AND NOT coalesce(array_agg(a.attname::text), '{}') @> CAST(:key AS text[])
    ORDER BY 1 LIMIT 1
""")
