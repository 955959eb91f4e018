"""An operator's pause: executors hand back what they hold, claim nothing, say so, and go on at once."""

from __future__ import annotations

import asyncio

from consumer.postgres.pause import Pause
from consumer.postgres.runs import Claim
from tests.integration.executor_work import Work, accepted, pass_well, until, wait_for_status, with_executor
from tests.integration.postgres_world import World, in_world


def test_while_paused_an_executor_hands_back_what_it_holds_and_claims_nothing_until_it_is_resumed(database_url: str) -> None:
    """Both are told by notification: the executor would not look again for a minute."""
    resumed = asyncio.Event()

    async def carry(work: Work, claim: Claim) -> None:
        await resumed.wait()
        await pass_well(work, claim)

    async def test(work: Work) -> None:
        pause = Pause(work.world.database)
        run_id = await accepted(work)
        await until(lambda: bool(work.claims))
        await pause.pause("the model's price list is wrong")
        run = await wait_for_status(work, run_id, "pending")
        assert (run["failures"], run["held_up_since"], run["error_code"], run["lease_until"]) == (0, None, None, None)
        assert (run["story"][-1]["what"], run["story"][-1]["reason"]) == ("handed_back", "pause")
        assert work.sample("runs_handed_back_total", reason="pause") == 1
        late = await accepted(work, key="late")
        said = work.worker.health.reasons()["executor"]
        assert said.startswith("paused by an operator since 20")
        assert said.endswith("Z (the model's price list is wrong); 'full-pass resume' goes on")
        assert await work.world.value("SELECT bool_and(due_at <= now()) FROM full_pass_runs")
        assert len(work.claims) == 1
        resumed.set()
        await pause.resume()
        for each in (run_id, late):
            assert (await wait_for_status(work, each, "completed"))["failures"] == 0
        await until(lambda: work.worker.health.ready)

    with_executor(database_url, carry, test, poll_seconds=60, lease_seconds=600)


def test_an_executor_that_starts_paused_says_so_and_stops_at_once(database_url: str) -> None:
    async def work(world: World) -> None:
        await Pause(world.database).pause()

    async def test(work: Work) -> None:
        await until(lambda: "paused by an operator" in work.worker.health.reasons().get("executor", ""))
        await accepted(work)
        async with asyncio.timeout(2):
            await work.stop()
        assert work.claims == []

    in_world(database_url, work)
    with_executor(database_url, pass_well, test, poll_seconds=60, lease_seconds=600, shutdown_seconds=60)


def test_a_claim_itself_takes_nothing_while_paused(database_url: str) -> None:
    """An executor that looked before the pause and claims after it."""

    async def work(world: World) -> None:
        pause = Pause(world.database)
        silent = await world.started()
        await world.expire(silent)
        await world.accept(await world.user())
        await pause.pause()
        assert await world.ledger.claim(0.01, (), expired_count=True, suspects=True) is None
        await pause.resume()
        claim = await world.ledger.claim(0.01, (), expired_count=True, suspects=True)
        assert claim is not None
        assert claim.run_id == silent.run_id

    in_world(database_url, work)


def test_pausing_and_resuming_twice_is_like_once(database_url: str) -> None:
    async def work(world: World) -> None:
        pause = Pause(world.database)
        assert await pause.state() is None
        first, new = await pause.pause("a deploy")
        assert (new, first.reason) == (True, "a deploy")
        assert await pause.pause() == (first, False)
        again, new = await pause.pause("a longer deploy")
        assert (new, again.paused_at, again.reason) == (False, first.paused_at, "a longer deploy")
        assert await pause.state() == again
        assert await pause.resume() == again
        assert await pause.resume() is None
        assert await pause.state() is None

    in_world(database_url, work)
