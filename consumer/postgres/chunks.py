"""`conversation_chunks`: what chat search and the facts stage read of an export (specification 3)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import text

from consumer.postgres.database import Database
from consumer.postgres.runs import Claim
from consumer.postgres.saving import saving

PAGE_CHUNKS = 200
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
        """
        async with saving(self._database, claim) as transaction:
            await transaction.execute(_DELETE, {"user_id": claim.user_id})
            for batch in batches:
                await transaction.execute(_INSERT, {"user_id": claim.user_id, **_columns(batch)})

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


def _columns(batch: Sequence[Chunk]) -> dict[str, list[Any]]:
    names = Chunk.__struct_fields__
    return {name: [getattr(chunk, name) for chunk in batch] for name in names}


_DELETE = text("DELETE FROM conversation_chunks WHERE user_id = :user_id")

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

_PAGE = text(f"""
    SELECT conversation_id, title, content, token_count, chunk_index, total_chunks, message_count, is_recent, created_at,
           ctid::text AS place
    FROM conversation_chunks
    WHERE user_id = :user_id AND (:first OR (
        created_at >= CAST(:created_at AS timestamptz)
        AND (created_at, conversation_id COLLATE "C", chunk_index, content COLLATE "C", title COLLATE "C", ctid)
          > (CAST(:created_at AS timestamptz), CAST(:conversation_id AS text), CAST(:chunk_index AS integer),
             CAST(:content AS text), CAST(:title AS text), CAST(CAST(:place AS text) AS tid))
    ))
    ORDER BY created_at, conversation_id COLLATE "C", chunk_index, content COLLATE "C", title COLLATE "C", ctid
    LIMIT {PAGE_CHUNKS}
""")
