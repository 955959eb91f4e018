"""A profile row as the application would write it after a quick pass: for the sandbox and the demo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import text

from consumer.postgres.database import Database
from schemas.events import SECTION_NAMES


async def seed_profile(database: Database, user_id: UUID, sections: Mapping[str, str]) -> bool:
    """Insert the user's row with these sections (JSON texts), unless there is one; returns whether it was inserted."""
    values = {name: sections.get(name) for name in SECTION_NAMES}
    async with database.transaction() as transaction:
        return (await transaction.execute(_SEED, {"user_id": user_id, **values})).rowcount == 1


async def fetch_profile(database: Database, user_id: UUID) -> dict[str, Any]:
    """The user's profile as this service knows it; empty without a row."""
    async with database.transaction() as transaction:
        row = (await transaction.execute(_FETCH, {"user_id": user_id})).mappings().one_or_none()
    return {} if row is None else dict(row)


_SEED = text("""
    INSERT INTO user_profiles (user_id, soul_md, identity_md, user_md, agents_md, tools_md, full_pass_status)
    SELECT CAST(:user_id AS uuid), :soul, :identity, :user, :agents, :tools, 'pending'
    WHERE NOT EXISTS (SELECT FROM user_profiles WHERE user_id = :user_id)
""")

_FETCH = text("""
    SELECT soul_md, identity_md, user_md, agents_md, tools_md, memory_md, soulprint_text, full_pass_status,
           full_pass_started_at, full_pass_completed_at, full_pass_error, profile_version
    FROM user_profiles WHERE user_id = :user_id
""")
