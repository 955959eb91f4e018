"""`users forget`: what the database keeps of a user goes, and a fence against their old events stays (guarantee G11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from consumer.errors import CommandError
from consumer.postgres.chunks import CHANGEOVER_KEY, OldChunks
from consumer.postgres.database import Database, sqlstate
from consumer.postgres.forgotten import USER_SHA256

BATCH_ROWS = 2_000
CHANGEOVER_WAIT_SECONDS = 600.0
_LOCK_TIMEOUT_SECONDS = 20.0  # less than any statement may take
_LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class Erased:
    """What was removed of a user.

    `profile` is `kept`, `emptied` or `none`; the versions of a later profile are above `profile_version`.
    """

    forgotten_at: datetime
    profile_version: int
    profile: str
    runs: int
    recorded_answers: int
    chunks: int
    outbox_rows: int


class Forgetting:
    """Erases users. Interrupted, it leaves the fence; run again, it removes the rest."""

    def __init__(self, database: Database, changeover_wait_seconds: float = CHANGEOVER_WAIT_SECONDS) -> None:
        self._database = database
        self._changeover_wait_seconds = changeover_wait_seconds

    async def forget(self, user_id: UUID, *, profile: bool) -> Erased:
        """Fence the user off, then remove runs, recorded answers, chunks and outbox rows in short transactions.

        Args:
            user_id: whose.
            profile: whether MEMORY, sections and `soulprint_text` are emptied too, and the status with them. Otherwise the
                profile row stays as it is, but for `processing`, which goes back to `pending`.

        Raises:
            CommandError: when a worker goes on replacing the user's chunks for ten minutes.
            DatabaseUnavailable: when PostgreSQL is away; the fence stands if it was committed.
        """
        user = {"user_id": user_id}
        async with self._alone_with_chunks(user) as still_alone:
            # Two transactions: whoever could not see the fence, since it was being put up, is seen by the second.
            async with self._database.transaction() as transaction:
                forgotten_at = (await transaction.execute(_FENCE, user)).scalar_one()
            old = user | {"forgotten_at": forgotten_at}
            async with self._database.transaction() as transaction:
                await transaction.execute(_TAKE_AWAY, old)  # waits for a save that is under way: nothing comes after it
                rows = (await transaction.execute(_EMPTY if profile else _LEAVE, old)).rowcount
                version = (await transaction.execute(_NOTE_VERSION, user)).scalar_one()
            outbox_rows = await self._remove(partial(_delete, _OUTBOX, old), still_alone)
            answers = await self._remove(partial(_delete, _ANSWERS, old), still_alone)
            chunks = await self._remove(OldChunks(user_id).delete_some, still_alone)
            runs = await self._remove(partial(_delete, _RUNS, old), still_alone)
            async with self._database.transaction() as transaction:
                await transaction.execute(_LEAVE_REPLAYS, user)
        found = ("emptied" if profile else "kept") if rows else "none"
        return Erased(forgotten_at, version, found, runs, answers, chunks, outbox_rows)

    @asynccontextmanager
    async def _alone_with_chunks(self, user: dict[str, Any]) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
        """Keep runs from replacing the user's chunks: those of an event completed later must not go with the old ones.

        The transaction that holds this lock writes nothing. It is spoken to after each step, or the server ends it, so that a
        frozen command holds nobody up.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._changeover_wait_seconds
        while (left := until - loop.time()) > 0:
            wait = f"{int(min(left, _LOCK_TIMEOUT_SECONDS) * 1000) + 1}ms"
            async with self._database.transaction() as guard:
                await guard.execute(_WAIT_AT_MOST, {"wait": wait})
                try:
                    await guard.execute(_ALONE, user)
                except DBAPIError as error:
                    if sqlstate(error) != _LOCK_NOT_AVAILABLE:
                        raise
                    await guard.rollback()
                    continue
                yield partial(guard.execute, _STILL_ALONE)
                return
        raise CommandError("a worker is replacing this user's chunks all the time; run the command again")

    async def _remove(self, some: Callable[[AsyncConnection], Awaitable[int]], still_alone: Callable[[], Awaitable[Any]]) -> int:
        """Remove some in a transaction of their own, until there are none."""
        removed = 0
        while True:
            async with self._database.transaction() as transaction:
                count = await some(transaction)
            await still_alone()
            if count == 0:
                return removed
            removed += count


async def _delete(statement: TextClause, old: dict[str, Any], transaction: AsyncConnection) -> int:
    return (await transaction.execute(statement, old)).rowcount


_WAIT_AT_MOST = text("SELECT set_config('lock_timeout', :wait, true)")

_ALONE = text(f"SELECT pg_advisory_xact_lock({CHANGEOVER_KEY})")

_STILL_ALONE = text("SELECT 1")

# Every run that there is counts as older than the fence, also one whose event comes from a clock that is ahead of ours.
_FENCE = text(f"""
    INSERT INTO full_pass_forgotten AS fence (user_sha256, forgotten_at, profile_version)
    SELECT {USER_SHA256}, greatest(clock_timestamp(), max(completed_at)), coalesce(max(profile_version), 0)
    FROM full_pass_runs WHERE user_id = :user_id
    ON CONFLICT (user_sha256) DO UPDATE
    SET forgotten_at = greatest(fence.forgotten_at, excluded.forgotten_at),
        profile_version = greatest(fence.profile_version, excluded.profile_version)
    RETURNING forgotten_at
""")

# Left pending, under a token that nobody holds: if the command ends here, a claim removes them later.
_TAKE_AWAY = text("""
    UPDATE full_pass_runs
    SET status = 'pending', attempt = attempt + 1, lease_until = NULL, due_at = clock_timestamp() + interval '1 hour'
    WHERE user_id = :user_id AND status IN ('pending', 'running') AND completed_at <= :forgotten_at
""")

_UNTAKEN = """NOT EXISTS (
    SELECT FROM full_pass_runs AS later
    WHERE later.user_id = profile.user_id AND later.status = 'running' AND later.completed_at > :forgotten_at)"""

_LEAVE = text(f"""
    UPDATE user_profiles AS profile
    SET full_pass_status = CASE WHEN full_pass_status = 'processing' AND {_UNTAKEN} THEN 'pending' ELSE full_pass_status END
    WHERE user_id = :user_id
""")

_EMPTY = text(f"""
    UPDATE user_profiles AS profile
    SET memory_md = NULL, soul_md = NULL, identity_md = NULL, user_md = NULL, agents_md = NULL, tools_md = NULL,
        soulprint_text = NULL, full_pass_completed_at = NULL, full_pass_error = NULL,
        full_pass_status = CASE WHEN {_UNTAKEN} THEN 'pending' ELSE full_pass_status END,
        full_pass_started_at = CASE WHEN {_UNTAKEN} THEN NULL ELSE full_pass_started_at END,
        profile_version = CASE
            WHEN num_nonnulls(memory_md, soul_md, identity_md, user_md, agents_md, tools_md, soulprint_text) > 0
                 OR profile_version < fence.version THEN greatest(profile_version, fence.version) + 1
            ELSE profile_version END
    FROM (SELECT profile_version AS version FROM full_pass_forgotten WHERE user_sha256 = {USER_SHA256}) AS fence
    WHERE user_id = :user_id
""")

_NOTE_VERSION = text(f"""
    UPDATE full_pass_forgotten
    SET profile_version = greatest(
        profile_version,
        (SELECT coalesce(max(profile_version), 0) FROM user_profiles WHERE user_id = :user_id))
    WHERE user_sha256 = {USER_SHA256} RETURNING profile_version
""")

_LATER = """EXISTS (
    SELECT FROM full_pass_runs AS later WHERE later.run_id = {it}.run_id AND later.completed_at > :forgotten_at)"""

_OUTBOX = text(f"""
    DELETE FROM full_pass_outbox WHERE id = ANY(ARRAY(
        SELECT id FROM full_pass_outbox AS event
        WHERE user_id = :user_id AND NOT {_LATER.format(it="event")} LIMIT {BATCH_ROWS}))
""")

_ANSWERS = text(f"""
    DELETE FROM full_pass_model_calls WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM full_pass_model_calls AS answer
        WHERE user_id = :user_id AND NOT {_LATER.format(it="answer")} LIMIT {BATCH_ROWS}))
""")

# By nobody's id, since a replay that names no user is one of all.
_LEAVE_REPLAYS = text("""
    UPDATE full_pass_replays
    SET selection = jsonb_set(selection, '{asked,user_ids}', (
        SELECT jsonb_agg(DISTINCT CASE WHEN named = CAST(CAST(:user_id AS uuid) AS text)
                                       THEN '00000000-0000-0000-0000-000000000000' ELSE named END)
        FROM jsonb_array_elements_text(selection #> '{asked,user_ids}') AS named))
    WHERE selection #> '{asked,user_ids}' @> to_jsonb(CAST(CAST(:user_id AS uuid) AS text))
""")

_RUNS = text(f"""
    DELETE FROM full_pass_runs WHERE run_id = ANY(ARRAY(
        SELECT run_id FROM full_pass_runs WHERE user_id = :user_id AND completed_at <= :forgotten_at LIMIT {BATCH_ROWS}))
""")
