"""An executor at work on a real ledger. The pass is a coroutine of the test's: what it raises is what has to be settled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from consumer.app import Worker, supervise
from consumer.claude.gate import Claude
from consumer.executor import Executor
from consumer.postgres.database import Database
from consumer.postgres.runs import Claim
from consumer.postgres.spend import Spend
from consumer.settings import Settings
from consumer.traces import Traces
from schemas.events import SECTION_NAMES
from tests.integration.postgres_world import World, a_world

SECTIONS: dict[str, dict[str, Any]] = {name: {"what": name} for name in SECTION_NAMES}


@dataclass
class Work:
    """An executor at work, and what its runs did."""

    world: World
    worker: Worker
    claude: Claude
    claims: list[Claim] = field(default_factory=list)
    part: asyncio.Task[None] | None = None

    def sample(self, name: str, **labels: str) -> float:
        """The value of one of our metrics; 0 while it has none."""
        return self.worker.metrics.registry.get_sample_value(f"full_pass_{name}", labels) or 0

    async def stop(self) -> None:
        """Stop as SIGTERM does, and wait until the executor has ended."""
        self.worker.stopping.set()
        assert self.part is not None
        await self.part


Carry = Callable[[Work, Claim], Awaitable[None]]


def settings_for(url: str, **changes: Any) -> Settings:
    """Settings of an impatient worker."""
    named: dict[str, Any] = {"DATABASE_URL": url, "ANTHROPIC_API_KEY": "sk-ant-test"}
    quick = {"lease_seconds": 2, "poll_seconds": 0.1, "retry_backoff_seconds": 0.05, "shutdown_seconds": 5}
    return Settings(**{**named, **quick, **changes})


@asynccontextmanager
async def at_work(world: World, carry: Carry, **changes: Any) -> AsyncIterator[Work]:
    """A supervised executor for the length of the block."""
    settings = settings_for(world.database.url, **changes)
    database = Database(world.database.url, settings.lease_seconds, connections=8)
    worker = Worker(settings, database)
    claude = Claude(settings, world.answers, Spend(database), worker.metrics, Traces.off())
    work = Work(World(database), worker, claude)

    async def carry_and_note(claim: Claim) -> None:
        work.claims.append(claim)
        await carry(work, claim)

    try:
        async with asyncio.TaskGroup() as tasks:
            executor = Executor(
                settings,
                work.world.ledger,
                work.world.profiles,
                claude,
                carry_and_note,
                health=worker.health,
                metrics=worker.metrics,
                tasks=tasks,
            )
            work.part = tasks.create_task(supervise("executor", executor.run, worker, worker.stopping))
            yield work
            await work.stop()
    finally:
        await claude.close()
        await database.close()


def with_executor(url: str, carry: Carry, test: Callable[[Work], Awaitable[None]], **changes: Any) -> None:
    """Run a test beside an executor on a database of its own."""

    async def main() -> None:
        async with a_world(url) as world, at_work(world, carry, **changes) as work:
            await test(work)

    asyncio.run(main())


async def until(condition: Callable[[], Any], seconds: float = 15) -> None:
    """Wait, with a deadline, for a condition that may be awaitable."""
    async with asyncio.timeout(seconds):
        while True:
            met = condition()
            if await met if isinstance(met, Awaitable) else met:
                return
            await asyncio.sleep(0.01)


async def accepted(work: Work, **more: Any) -> UUID:
    """A run of a user with a profile; its id."""
    return (await work.world.accept(await work.world.user(), **more)).run_id


def raising(error: BaseException) -> Carry:
    """A pass that stops at once."""

    async def carry(_work: Work, _claim: Claim) -> None:
        raise error

    return carry


async def pass_well(work: Work, claim: Claim) -> None:
    """A pass that saves everything, without a model."""
    profiles = work.world.profiles
    await profiles.begin(claim)
    await profiles.save_memory(claim, "## Preferences", 1, 1.0)
    await profiles.save_sections(claim, SECTIONS, "soulprint", conversations_sampled=1, model="a-model")


async def never_end(_work: Work, _claim: Claim) -> None:
    await asyncio.Event().wait()


async def wait_for_status(work: Work, run_id: UUID, status: str) -> dict[str, Any]:
    await until(lambda: _has(work, run_id, status))
    return await work.world.run(run_id)


async def _has(work: Work, run_id: UUID, status: str) -> bool:
    return bool((await work.world.run(run_id))["status"] == status)


async def handed_back(work: Work, run_id: UUID) -> dict[str, Any]:
    """The run's row once it was put back for the first time. It is due much later, so nobody claims it again meanwhile."""
    await until(lambda: bool(work.claims))
    return await wait_for_status(work, run_id, "pending")


async def ends_of(work: Work) -> list[tuple[str, str, str]]:
    """Code, detail and stage of each v2-failed event."""
    rows = await work.world.sql("SELECT data FROM full_pass_outbox WHERE event_type = 'v2-failed' ORDER BY id")
    events = [json.loads(row["data"]) for row in rows]
    return [(event["error_code"], event["error_detail"], event["stage"]) for event in events]


async def all_completed(work: Work, number: int) -> bool:
    return bool(await work.world.value("SELECT count(*) FROM full_pass_runs WHERE status = 'completed'") == number)
