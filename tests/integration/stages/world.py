"""One worker's gate between a stand-in for the model API and a database, for the stages that ask the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from consumer.claude.gate import Claude, RunClaude
from consumer.full_pass.facts import Extraction, extract_facts
from consumer.metrics import Metrics
from consumer.postgres.answers import Answers
from consumer.postgres.chunks import Chunk
from consumer.postgres.database import Database
from consumer.postgres.spend import Spend
from consumer.settings import Settings
from consumer.traces import Traces
from sandbox.anthropic import StandIn

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """One worker's gate between a stand-in and a database."""

    claude: Claude
    stand_in: StandIn
    database: Database
    user_id: UUID

    async def run(self, run_id: UUID | None = None) -> RunClaude:
        """A run of the user in the ledger, and the gate as it sees it."""
        run_id = run_id or uuid4()
        values = {"run_id": run_id, "user_id": self.user_id, "key": str(run_id)}
        async with self.database.transaction() as transaction:
            await transaction.execute(_NEW_RUN, values)
        return self.claude.for_run(run_id, self.user_id)

    def next_attempt(self, run_id: UUID) -> RunClaude:
        """The same run, claimed again after an outage: its first call is the probe."""
        self.claude.pace.begin_probe(run_id)
        return self.claude.for_run(run_id, self.user_id)

    async def verdicts(self) -> list[str]:
        """The verdicts of the user's recorded answers that are unusable."""
        async with self.database.transaction() as transaction:
            return [str(row[0]) for row in await transaction.execute(_VERDICTS, {"user_id": self.user_id})]

    def asked(self, kind: str) -> list[str]:
        """The user messages of all requests of a kind, in order."""
        return [request["body"]["messages"][0]["content"] for request in self.stand_in.requests(kind)]


_NEW_RUN = text("""INSERT INTO full_pass_runs (run_id, user_id, idempotency_key, completed_at, event, traceparent)
                   VALUES (:run_id, :user_id, :key, now(), '{}', '')""")
_VERDICTS = text("""SELECT verdict FROM full_pass_model_calls
                   WHERE user_id = :user_id AND verdict IS NOT NULL ORDER BY verdict""")


@asynccontextmanager
async def a_world(database_url: str, latency_seconds: float = 0) -> AsyncIterator[World]:
    database = Database(database_url)
    async with StandIn(latency_seconds=latency_seconds) as stand_in:
        named: dict[str, Any] = {"ANTHROPIC_API_KEY": "sk-ant-test", "ANTHROPIC_BASE_URL": stand_in.url}
        claude = Claude(
            Settings(**named, retry_backoff_seconds=0.01), Answers(database), Spend(database), Metrics(), Traces.off()
        )
        try:
            yield World(claude, stand_in, database, uuid4())
        finally:
            await claude.close()
            await database.close()


# aiohttp warns of bodies over 1 MiB, which Japanese in JSON's escapes soon is.
large_body = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


def in_a_world(database_url: str, main: Callable[[World], Awaitable[None]], latency_seconds: float = 0) -> None:
    """Run the test's own coroutine between a stand-in and a database."""

    async def run() -> None:
        async with a_world(database_url, latency_seconds) as world:
            await main(world)

    asyncio.run(run())


def conversation(number: int, said: str | None = None, conversation_id: str | None = None) -> Chunk:
    """A conversation in one chunk; each begins a day after the one before."""
    said = said or f"I like tea number {number}. It is good."
    content = f"# Tea {number}\n\nUser: {said}\nAssistant: I see, thank you for telling me about it."
    day = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=number)
    return Chunk(
        conversation_id=conversation_id or f"c{number}",
        title=f"Tea {number}",
        content=content,
        token_count=len(content) // 4,
        chunk_index=0,
        total_chunks=1,
        message_count=2,
        is_recent=False,
        created_at=day,
    )


async def pages(chunks: Sequence[Chunk], size: int = 50) -> AsyncIterator[Sequence[Chunk]]:
    for start in range(0, len(chunks), size):
        yield chunks[start : start + size]


async def extracted(claude: RunClaude, chunks: Sequence[Chunk], tokens_per_call: int = 2_000) -> Extraction:
    return await extract_facts(pages(chunks), claude, tokens_per_call)


def fault(
    kind: str, of: str, times: int | None = None, contains: str | None = None, skip: int = 0, **more: Any
) -> list[dict[str, Any]]:
    match = {"kind": of} | ({"contains": contains} if contains else {})
    return [{"match": match, "times": times, "skip": skip, "fault": {"kind": kind, **more}}]
