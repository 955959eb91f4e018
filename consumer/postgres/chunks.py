"""`conversation_chunks`: what chat search and the facts stage read of an export (specification 3)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from consumer.errors import Outage, PassingFailure
from consumer.postgres.database import Database, sqlstate
from consumer.postgres.runs import Claim
from consumer.postgres.saving import saving, still_saving
from schemas.events import ErrorCode

PAGE_CHUNKS = 200
DELETED_AT_ONCE = 5_000
CHANGEOVER_KEY = "hashtextextended(CAST(CAST(:user_id AS uuid) AS text), 7207)"
"""The advisory lock under which a user's chunks change over, shared, or are erased, alone."""

_ORDER = ("created_at", "conversation_id", "chunk_index", "content", "title")


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of one conversation, as specification 3 cuts it. `token_count` is `len(content) // 4`."""

    conversation_id: str
    title: str
    content: str
    token_count: int
    chunk_index: int
    total_chunks: int
    message_count: int
    is_recent: bool
    created_at: datetime


class Chunks:
    """The chunks of a user, replaced as a whole and read back oldest first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replace(self, claim: Claim, batches: Iterable[Sequence[Chunk]]) -> None:
        """All the user's old chunks, whoever wrote them, give way to the new ones in one transaction.

        Batches are read one at a time, so the memory taken is that of one batch.

        Raises:
            LostLease, Superseded, DatabaseUnavailable: nothing was changed.
            Outage: nothing was changed, since what the user had is being erased in this moment.
            PassingFailure: nothing was changed, since a constraint of the application's refused a row.
        """
        user = {"user_id": claim.user_id}
        try:
            async with saving(self._database, claim) as transaction:
                if not (await transaction.execute(_CHANGE_OVER, user)).scalar_one():
                    raise Outage(
                        ErrorCode.INTERNAL, "the user is being forgotten at the moment; a later event waits until it is done"
                    )
                old = OldChunks(claim.user_id)
                while await old.delete_some(transaction):
                    await still_saving(self._database, transaction)
                for batch in batches:
                    await transaction.execute(_INSERT, user | _columns(batch))
                    await still_saving(self._database, transaction)
        except IntegrityError as error:
            raise _refused(error) from None

    async def oldest_first(self, claim: Claim) -> AsyncIterator[list[Chunk]]:
        """Pages of the user's chunks by time, conversation, index and content; no transaction is held between pages.

        Text is compared by code point, so the order, and with it every request, is the same in every database. Two conversations
        may be equal in all of that: then the title decides, then the place of the row, so that a page's end loses none.
        """
        after: dict[str, Any] = dict.fromkeys(_ORDER) | {"first": True, "place": None}
        while True:
            async with self._database.transaction() as transaction:
                rows = (await transaction.execute(_PAGE, {"user_id": claim.user_id, **after})).all()
            if not rows:
                return
            page = [Chunk(*row[:-1]) for row in rows]
            yield page
            after = {name: getattr(page[-1], name) for name in _ORDER} | {"first": False, "place": rows[-1].place}


class OldChunks:
    """The chunks that a user has, to be deleted some at a time: all in one statement could take longer than any may.

    From the oldest on, so that no statement looks again at what those before it have deleted.
    """

    def __init__(self, user_id: UUID) -> None:
        self._user_id = user_id
        self._after: str | None = None

    async def delete_some(self, transaction: AsyncConnection) -> int:
        """Delete the next; returns how many, 0 when there are none."""
        values = {"user_id": self._user_id, "after": self._after}
        row = (await transaction.execute(_DELETE_DATED, values)).one()
        if row.deleted:
            self._after = row.newest
            return int(row.deleted)
        return (await transaction.execute(_DELETE_UNDATED, {"user_id": self._user_id})).rowcount


def _refused(error: IntegrityError) -> PassingFailure:
    """Such as a unique key over what two conversations of an export may share. Constraints have names, never content."""
    constraint = getattr(error.orig.__cause__, "constraint_name", None) if error.orig else None
    told = f"{f'constraint {constraint}, ' if constraint else ''}SQLSTATE {sqlstate(error)}"
    return PassingFailure(
        ErrorCode.INTERNAL, f"the table conversation_chunks refused a row ({told}): it asks more of its rows than chunks can keep"
    )


def _columns(batch: Sequence[Chunk]) -> dict[str, list[Any]]:
    names = Chunk.__struct_fields__
    return {name: [getattr(chunk, name) for chunk in batch] for name in names}


_CHANGE_OVER = text(f"SELECT pg_try_advisory_xact_lock_shared({CHANGEOVER_KEY})")

# The user stands in both conditions, since in a table with partitions two rows may have one ctid.
_DELETE_DATED = text(f"""
    WITH old AS (
        SELECT ctid, created_at FROM conversation_chunks
        WHERE user_id = :user_id AND created_at >= coalesce(CAST(CAST(:after AS text) AS timestamptz), '-infinity')
        ORDER BY created_at LIMIT {DELETED_AT_ONCE}
    ), deleted AS (
        DELETE FROM conversation_chunks WHERE user_id = :user_id AND ctid = ANY(ARRAY(SELECT ctid FROM old)) RETURNING 1
    )
    SELECT (SELECT count(*) FROM deleted) AS deleted, (SELECT CAST(max(created_at) AS text) FROM old) AS newest
""")

_DELETE_UNDATED = text(f"""
    DELETE FROM conversation_chunks WHERE user_id = :user_id AND ctid = ANY(ARRAY(
        SELECT ctid FROM conversation_chunks WHERE user_id = :user_id AND created_at IS NULL LIMIT {DELETED_AT_ONCE}))
""")

_INSERT = text("""
    INSERT INTO conversation_chunks (user_id, conversation_id, title, content, token_count, chunk_index, total_chunks,
                                     message_count, chunk_tier, is_recent, created_at)
    SELECT CAST(:user_id AS uuid), conversation_id, title, content, token_count, chunk_index, total_chunks, message_count,
           'medium', is_recent, created_at
    FROM unnest(
        CAST(:conversation_id AS text[]), CAST(:title AS text[]), CAST(:content AS text[]), CAST(:token_count AS integer[]),
        CAST(:chunk_index AS integer[]), CAST(:total_chunks AS integer[]), CAST(:message_count AS integer[]),
        CAST(:is_recent AS boolean[]), CAST(:created_at AS timestamptz[])
    ) AS new (conversation_id, title, content, token_count, chunk_index, total_chunks, message_count, is_recent, created_at)
""")

# The time stands apart from the rest, under no OR: so the index leads to the page, and not through all that lie before it.
_PAGE = text(f"""
    SELECT conversation_id, title, content, token_count, chunk_index, total_chunks, message_count, is_recent, created_at,
           ctid::text AS place
    FROM conversation_chunks
    WHERE user_id = :user_id AND created_at >= coalesce(CAST(:created_at AS timestamptz), '-infinity') AND (:first OR
        (created_at, conversation_id COLLATE "C", chunk_index, content COLLATE "C", title COLLATE "C", ctid)
      > (CAST(:created_at AS timestamptz), CAST(:conversation_id AS text), CAST(:chunk_index AS integer),
         CAST(:content AS text), CAST(:title AS text), CAST(CAST(:place AS text) AS tid)))
    ORDER BY created_at, conversation_id COLLATE "C", chunk_index, content COLLATE "C", title COLLATE "C", ctid
    LIMIT {PAGE_CHUNKS}
""")
