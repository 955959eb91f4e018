"""`user_profiles`: what the chat service reads. Written through the door alone (specification 9; guarantees G3 to G5, G7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumer.errors import DETAIL_MAX_CHARS, FinalError, NotThereYet, Superseded
from consumer.postgres.database import Database
from consumer.postgres.forgotten import USER_SHA256
from consumer.postgres.outbox import announce
from consumer.postgres.runs import NOTIFY_RUNS, Claim
from consumer.postgres.saving import saving
from consumer.postgres.story import story_with
from schemas.events import SECTION_NAMES, ErrorCode, MemorySaved, Usage, V2Completed, V2Failed

_NO_PROFILE = "expected a row in user_profiles for this user; publish the event after the row is committed"
_NO_MEMORY = "the profile row, or the MEMORY that this run saved in it, is gone"


class Profiles:
    """The profile rows, as a run begins, saves and ends."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, claim: Claim) -> str | None:
        """Start a run on its profile: `processing`, unless it is `complete`, which a re-run leaves alone.

        Returns:
            The MEMORY that this run saved in an earlier attempt, or None.

        Raises:
            NotThereYet: without a profile row.
            FinalError: `profile_not_found`, when the run has saved a MEMORY and it is gone.
            Superseded, LostLease, DatabaseUnavailable: nothing was written.
        """
        async with saving(self._database, claim) as transaction:
            row = (await transaction.execute(_BEGIN, {"user_id": claim.user_id})).one_or_none()
            if claim.memory_saved_at is None:
                if row is None:
                    raise NotThereYet(ErrorCode.PROFILE_NOT_FOUND, _NO_PROFILE)
                return None
            if row is None or row.memory_md is None:
                raise FinalError(ErrorCode.PROFILE_NOT_FOUND, _NO_MEMORY)
            return str(row.memory_md)

    async def save_memory(self, claim: Claim, memory: str, fact_count: int, coverage: float) -> None:
        """Save MEMORY with its `memory-saved` event; nothing later removes it (guarantee G3).

        Raises:
            NotThereYet: when the profile row has gone in the meantime.
            Superseded, LostLease, DatabaseUnavailable: nothing was written.
        """
        async with saving(self._database, claim) as transaction:
            version = (await transaction.execute(_SAVE_MEMORY, {"user_id": claim.user_id, "memory": memory})).scalar_one_or_none()
            if version is None:
                raise NotThereYet(ErrorCode.PROFILE_NOT_FOUND, _NO_PROFILE)
            noted = {"run_id": claim.run_id, "version": version}
            saved_at = (await transaction.execute(_NOTE_MEMORY, noted)).scalar_one()
            event = MemorySaved(
                **_of(claim),
                profile_version=version,
                memory_sha256=_sha256(memory),
                memory_chars=len(memory),
                fact_count=fact_count,
                coverage=coverage,
                saved_at=saved_at,
            )
            await announce(transaction, event, claim.traceparent, saved_at)

    async def save_sections(
        self,
        claim: Claim,
        sections: Mapping[str, Mapping[str, Any]],
        soulprint: str,
        *,
        conversations_sampled: int,
        model: str,
    ) -> None:
        """Save all five sections and `soulprint_text` in one statement, and end the run with `v2-completed` (guarantee G4).

        Raises:
            FinalError: `profile_not_found`, when the profile row or its MEMORY has gone in the meantime.
            Superseded, LostLease, DatabaseUnavailable: nothing was written.
        """
        columns = {name: json.dumps(sections[name], ensure_ascii=False) for name in SECTION_NAMES}
        async with saving(self._database, claim) as transaction:
            saved = await transaction.execute(_SAVE_SECTIONS, {"user_id": claim.user_id, "soulprint": soulprint, **columns})
            version = saved.scalar_one_or_none()
            if version is None:
                raise FinalError(ErrorCode.PROFILE_NOT_FOUND, _NO_MEMORY)
            run = await _end(transaction, claim, status="completed", version=version)
            event = V2Completed(
                **_of(claim),
                profile_version=version,
                soulprint_sha256=_sha256(soulprint),
                sections=list(SECTION_NAMES),
                conversations_sampled=conversations_sampled,
                model=model,
                usage=Usage(
                    model_calls=run.model_calls,
                    input_tokens=run.input_tokens,
                    output_tokens=run.output_tokens,
                    cost_usd=None if run.cost_usd is None else float(run.cost_usd),
                ),
                completed_at=run.finished_at,
            )
            await announce(transaction, event, claim.traceparent, run.finished_at)

    async def end_failed(self, claim: Claim, code: ErrorCode, detail: str) -> ErrorCode:
        """End a run with `v2-failed`. What the user has stays: MEMORY, sections, and a status that was `complete`.

        A run that has been overtaken by a newer one ends as superseded, whatever else stopped it: the profile is the newer's.

        Returns:
            The code that it ended with.

        Raises:
            LostLease, DatabaseUnavailable: nothing was written.
        """
        try:
            async with saving(self._database, claim) as transaction:
                await fail_in(transaction, claim, code, detail)
        except Superseded as overtaken:
            if code is not ErrorCode.SUPERSEDED:
                code, detail = overtaken.code, overtaken.detail
            async with saving(self._database, claim, though_superseded=True) as transaction:
                await fail_in(transaction, claim, code, detail)
        return code


async def fail_in(
    transaction: AsyncConnection, claim: Claim, code: ErrorCode, detail: str, *, leave_profile: bool = False
) -> None:
    """The end of a failed run, within a transaction that holds its row; `leave_profile` where its status is another run's."""
    detail = detail[:DETAIL_MAX_CHARS]
    memory_saved = claim.memory_saved_at is not None or bool(
        (await transaction.execute(_HAS_MEMORY, {"run_id": claim.run_id})).scalar()
    )
    error = f"{code}: {detail}"[:DETAIL_MAX_CHARS]
    gone = memory_saved and code is ErrorCode.PROFILE_NOT_FOUND
    if not (code is ErrorCode.SUPERSEDED or gone or leave_profile):
        change = _STAY_COMPLETE if memory_saved else _STATUS_FAILED
        await transaction.execute(change, {"user_id": claim.user_id} | ({} if memory_saved else {"error": error}))
    version = (await transaction.execute(_VERSION, {"user_id": claim.user_id})).scalar_one_or_none()
    run = await _end(transaction, claim, status="failed", version=None, code=code, detail=detail)
    event = V2Failed(
        **_of(claim),
        profile_version=version,
        error_code=code,
        error_detail=detail,
        stage=run.stage,
        attempts=run.attempt,
        memory_saved=memory_saved,
        failed_at=run.finished_at,
    )
    await announce(transaction, event, claim.traceparent, run.finished_at)


async def _end(
    transaction: AsyncConnection,
    claim: Claim,
    *,
    status: str,
    version: int | None,
    code: ErrorCode | None = None,
    detail: str | None = None,
) -> Any:
    values = {"run_id": claim.run_id, "status": status, "version": version, "code": code, "detail": detail}
    row = (await transaction.execute(_END, values)).one()
    await transaction.execute(NOTIFY_RUNS)  # another run of this user may start now
    return row


def _of(claim: Claim) -> dict[str, UUID | str | int]:
    return {
        "user_id": claim.user_id,
        "idempotency_key": claim.idempotency_key,
        "generation": claim.generation,
        "run_id": claim.run_id,
    }


def _sha256(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


_BEGIN = text("""
    UPDATE user_profiles
    SET full_pass_started_at = CASE WHEN full_pass_status IS DISTINCT FROM 'complete' THEN clock_timestamp()
                                    ELSE full_pass_started_at END,
        full_pass_status = CASE WHEN full_pass_status IS DISTINCT FROM 'complete' THEN 'processing' ELSE full_pass_status END
    WHERE user_id = :user_id
    RETURNING memory_md
""")

_NEXT_VERSION = f"""greatest(coalesce(profile_version, 0),
        (SELECT coalesce(max(profile_version), 0) FROM full_pass_runs WHERE user_id = :user_id),
        (SELECT coalesce(max(profile_version), 0) FROM full_pass_forgotten WHERE user_sha256 = {USER_SHA256})) + 1"""
"""In a row made anew the version goes on above the highest that the ledger, or the fence of a forgotten user, knows."""

_SAVE_MEMORY = text(f"""
    UPDATE user_profiles SET memory_md = :memory, profile_version = {_NEXT_VERSION}
    WHERE user_id = :user_id RETURNING profile_version
""")

_NOTE_MEMORY = text("""
    UPDATE full_pass_runs
    SET memory_saved_at = clock_timestamp(), profile_version = :version,
        failures = 0, held_up_since = NULL, error_code = NULL, error_detail = NULL
    WHERE run_id = :run_id RETURNING memory_saved_at
""")

_SAVE_SECTIONS = text(f"""
    UPDATE user_profiles
    SET soul_md = :soul, identity_md = :identity, user_md = :user, agents_md = :agents, tools_md = :tools,
        soulprint_text = :soulprint, profile_version = {_NEXT_VERSION},
        full_pass_status = 'complete', full_pass_completed_at = clock_timestamp(), full_pass_error = NULL
    WHERE user_id = :user_id AND memory_md IS NOT NULL RETURNING profile_version
""")

_HAS_MEMORY = text("SELECT memory_saved_at IS NOT NULL FROM full_pass_runs WHERE run_id = :run_id")

_STAY_COMPLETE = text("""
    UPDATE user_profiles SET full_pass_status = 'complete', full_pass_completed_at = clock_timestamp(), full_pass_error = NULL
    WHERE user_id = :user_id AND memory_md IS NOT NULL
""")

_STATUS_FAILED = text("""
    UPDATE user_profiles SET full_pass_status = 'failed', full_pass_error = :error
    WHERE user_id = :user_id AND full_pass_status = 'processing'
""")

_VERSION = text("SELECT profile_version FROM user_profiles WHERE user_id = :user_id")

_END = text(f"""
    UPDATE full_pass_runs
    SET status = :status, finished_at = clock_timestamp(), lease_until = NULL, held_up_since = NULL,
        profile_version = coalesce(CAST(:version AS bigint), profile_version),
        error_code = CAST(:code AS text), error_detail = CAST(:detail AS text),
        story = {story_with("CAST(:status AS text)", code="CAST(:code AS text)")}
    WHERE run_id = :run_id
    RETURNING finished_at, stage, attempt, model_calls, input_tokens, output_tokens, cost_usd
""")
