"""Who runs what, and when it is tried again: the ledger on PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from consumer.errors import LostLease
from consumer.postgres.claiming import REPLAY_PRIORITY
from consumer.postgres.database import DataRefused
from consumer.postgres.wakeups import RUNS_CHANNEL, Wakeups
from tests.integration.postgres_world import LEASE_SECONDS, World, in_world, new_run

# The test session's server started a moment ago, and for a lease after its start no lease counts as expired.
SHORT = 0.0


async def claim_expired(world: World, *held: UUID, suspects: bool = True) -> object:
    return await world.ledger.claim(SHORT, held, expired_count=True, suspects=suspects)


@pytest.mark.guarantee("G2")
def test_the_same_events_accepted_again_are_no_new_runs(database_url: str) -> None:
    async def work(world: World) -> None:
        runs = [new_run(uuid4()) for _ in range(5)]
        assert [await world.ledger.accept(runs), await world.ledger.accept(runs), await world.ledger.accept(runs[:2] * 3)] == [
            5,
            0,
            0,
        ]
        assert await world.value("SELECT count(*) FROM full_pass_runs") == 5

    in_world(database_url, work)


def test_two_intakes_with_the_same_keys_in_opposite_order_do_not_deadlock(database_url: str) -> None:
    async def work(world: World) -> None:
        for _ in range(5):
            runs = [new_run(uuid4()) for _ in range(500)]
            new = await asyncio.gather(world.ledger.accept(runs), world.ledger.accept(runs[::-1]))
            assert sum(new) == 500

    in_world(database_url, work)


def test_a_value_that_postgresql_takes_for_no_value_is_refused_as_data(database_url: str) -> None:
    async def work(world: World) -> None:
        with pytest.raises(DataRefused):
            await world.ledger.accept([new_run(uuid4(), "nul \x00")])
        assert await world.value("SELECT count(*) FROM full_pass_runs") == 0

    in_world(database_url, work)


def test_an_accepted_run_wakes_executors(database_url: str) -> None:
    async def work(world: World) -> None:
        async with Wakeups.connect(database_url, LEASE_SECONDS, (RUNS_CHANNEL,)) as wakeups:
            await world.accept(await world.user())
            assert await wakeups.wait(10)
            await world.ledger.accept([])
            assert not await wakeups.wait(0.05)

    in_world(database_url, work)


def test_of_a_user_the_newest_due_run_comes_first_and_the_others_wait_for_it(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        for seconds in (1, 3, 2):
            await world.accept(user, f"key-{seconds}", seconds=seconds)
        claim = await world.claimed()
        assert claim.idempotency_key == "key-3"
        assert await world.claim(claim.run_id) is None

    in_world(database_url, work)


def test_live_runs_come_before_replayed_ones_and_both_in_the_order_in_which_they_became_due(database_url: str) -> None:
    async def work(world: World) -> None:
        replayed = await world.accept(await world.user(), generation=1, priority=REPLAY_PRIORITY)
        first, second = [await world.accept(await world.user()) for _ in range(2)]
        assert [(await world.claimed()).run_id for _ in range(3)] == [first.run_id, second.run_id, replayed.run_id]

    in_world(database_url, work)


def test_two_workers_never_run_a_user_twice_at_once(database_url: str) -> None:
    async def work(world: World) -> None:
        for _ in range(20):
            user = await world.user()
            for seconds in range(4):
                await world.accept(user, f"key-{seconds}", seconds=seconds)
            claims = await asyncio.gather(*(world.claim() for _ in range(4)))
            assert sum(claim is not None for claim in claims) == 1
            await world.sql("DELETE FROM full_pass_runs")

    in_world(database_url, work)


def test_the_database_itself_refuses_two_running_runs_of_a_user(database_url: str) -> None:
    async def work(world: World) -> None:
        user = await world.user()
        await world.accept(user, "a")
        await world.accept(user, "b")
        with pytest.raises(Exception, match="full_pass_runs_one_running"):
            await world.sql("UPDATE full_pass_runs SET status = 'running'")

    in_world(database_url, work)


def test_a_run_that_is_not_due_yet_is_not_claimed_and_its_time_is_known(database_url: str) -> None:
    async def work(world: World) -> None:
        assert await world.ledger.seconds_until_next() is None
        await world.accept(await world.user())
        await world.sql("UPDATE full_pass_runs SET due_at = clock_timestamp() + interval '40 s'")
        assert await world.claim() is None
        assert await world.ledger.seconds_until_next() == pytest.approx(40, abs=2)

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
def test_a_run_whose_holder_went_silent_is_taken_over_counts_a_failure_and_gets_a_new_token(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        assert await claim_expired(world) is None
        await world.expire(claim)
        again = await world.ledger.claim(SHORT, [], expired_count=True, suspects=True)
        assert again is not None
        assert (again.run_id, again.attempt, again.failures) == (claim.run_id, claim.attempt + 1, 1)

    in_world(database_url, work)


def test_a_worker_never_claims_what_it_holds(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.expire(claim)
        assert await claim_expired(world, claim.run_id) is None
        assert await claim_expired(world) is not None

    in_world(database_url, work)


def test_silence_means_nothing_just_after_the_connection_was_lost_or_postgresql_started(database_url: str) -> None:
    async def work(world: World) -> None:
        await world.expire(await world.started())
        assert await world.ledger.claim(SHORT, [], expired_count=False, suspects=True) is None
        week = timedelta(days=7).total_seconds()
        assert await world.ledger.claim(week, [], expired_count=True, suspects=True) is None

    in_world(database_url, work)


def test_a_run_with_two_failures_is_left_to_a_worker_that_holds_no_such_run(database_url: str) -> None:
    async def work(world: World) -> None:
        await world.accept(await world.user())
        await world.sql("UPDATE full_pass_runs SET failures = 2")
        assert await world.claim(suspects=False) is None
        claim = await world.claimed()
        await world.expire(claim)
        await world.sql("UPDATE full_pass_runs SET failures = 1")
        assert await claim_expired(world, suspects=False) is None

    in_world(database_url, work)


def test_time_spent_waiting_for_a_worker_does_not_count_as_held_up(database_url: str) -> None:
    async def work(world: World) -> None:
        run = await world.accept(await world.user())
        await world.sql(
            """UPDATE full_pass_runs SET held_up_since = clock_timestamp() - interval '100 s',
               due_at = clock_timestamp() - interval '70 s'"""
        )
        await world.claimed()
        held_up = "SELECT extract(epoch FROM clock_timestamp() - held_up_since)::float8 FROM full_pass_runs WHERE run_id = :id"
        assert await world.value(held_up, id=run.run_id) == pytest.approx(30, abs=2)

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
def test_a_renewal_tells_which_runs_are_lost(database_url: str) -> None:
    async def work(world: World) -> None:
        kept, taken, ended = [await world.started() for _ in range(3)]
        await world.sql("UPDATE full_pass_runs SET attempt = attempt + 1 WHERE run_id = :id", id=taken.run_id)
        await world.sql("UPDATE full_pass_runs SET status = 'failed' WHERE run_id = :id", id=ended.run_id)
        await world.sql("UPDATE full_pass_runs SET lease_until = clock_timestamp()")
        assert await world.ledger.renew([kept, taken, ended], LEASE_SECONDS) == {taken.run_id, ended.run_id}
        renewed = await world.sql("SELECT run_id FROM full_pass_runs WHERE lease_until > clock_timestamp() + interval '20 s'")
        assert renewed == [{"run_id": kept.run_id}]

    in_world(database_url, work)


def test_a_long_save_of_one_run_does_not_cost_the_others_their_leases(database_url: str) -> None:
    async def work(world: World) -> None:
        saving, other = await world.started(), await world.started()
        await world.sql("UPDATE full_pass_runs SET lease_until = clock_timestamp()")
        async with world.database.engine.connect() as connection:
            await connection.execute(
                text("SELECT 1 FROM full_pass_runs WHERE run_id = :id FOR NO KEY UPDATE"), {"id": saving.run_id}
            )
            async with asyncio.timeout(5):
                assert await world.ledger.renew([saving, other], LEASE_SECONDS) == set()
        assert await world.value("SELECT lease_until > clock_timestamp() FROM full_pass_runs WHERE run_id = :id", id=other.run_id)

    in_world(database_url, work)


def test_entering_a_stage_without_the_lease_stops_the_run(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.ledger.enter_stage(claim, "facts", LEASE_SECONDS)
        assert (await world.run(claim.run_id))["stage"] == "facts"
        await world.sql("UPDATE full_pass_runs SET attempt = attempt + 1")
        with pytest.raises(LostLease):
            await world.ledger.enter_stage(claim, "memory", LEASE_SECONDS)

    in_world(database_url, work)


def test_a_run_handed_back_at_shutdown_is_due_at_once_and_has_lost_nothing(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        assert await world.ledger.put_back(claim)
        again = await world.claimed()
        assert (again.run_id, again.failures, again.attempt) == (claim.run_id, 0, 2)
        assert not await world.ledger.put_back(claim)

    in_world(database_url, work)


def test_an_outage_costs_no_failure_and_is_waited_for_twice_as_long_each_time(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        delay = "SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM full_pass_runs"
        assert await world.ledger.put_back_for_outage(claim, 8, 3600, 1000)
        assert await world.value(delay) == pytest.approx(7, abs=1.5)
        await world.sql(
            "UPDATE full_pass_runs SET due_at = clock_timestamp(), held_up_since = clock_timestamp() - interval '100 s'"
        )
        claim = await world.claimed()
        assert await world.ledger.put_back_for_outage(claim, 8, 3600, 1000)
        assert 70 < await world.value(delay) < 105
        await world.sql("UPDATE full_pass_runs SET due_at = clock_timestamp()")
        claim = await world.claimed()
        assert await world.ledger.put_back_for_outage(claim, 8, 20, 1000)
        assert 14 < await world.value(delay) < 21
        assert (await world.run(claim.run_id))["failures"] == 0

    in_world(database_url, work)


def test_an_outage_that_lasts_too_long_is_not_waited_for_unless_it_is_the_operators(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.sql("UPDATE full_pass_runs SET held_up_since = clock_timestamp() - interval '1001 s'")
        assert not await world.ledger.put_back_for_outage(claim, 8, 3600, 1000)
        assert (await world.run(claim.run_id))["status"] == "running"
        assert await world.ledger.put_back_for_outage(claim, 8, 3600, None)

    in_world(database_url, work)


def test_the_operators_trouble_does_not_begin_to_count(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        assert await world.ledger.put_back_for_outage(claim, 8, 3600, None)
        assert (await world.run(claim.run_id))["held_up_since"] is None
        await world.sql("UPDATE full_pass_runs SET due_at = clock_timestamp(), held_up_since = clock_timestamp()")
        assert await world.ledger.put_back_for_outage(await world.claimed(), 8, 3600, None)
        assert (await world.run(claim.run_id))["held_up_since"] is None  # nor does what an earlier outage began go on

    in_world(database_url, work)


def test_what_is_not_there_yet_is_looked_for_until_the_grace_is_over(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        assert not await world.ledger.put_back_in_grace(claim, 5, 0)
        assert await world.ledger.put_back_in_grace(claim, 5, 60)
        row = await world.run(claim.run_id)
        assert (row["status"], row["failures"], row["held_up_since"]) == ("pending", 0, None)
        assert await world.value("SELECT due_at <= clock_timestamp() + interval '1 s' FROM full_pass_runs")
        await world.sql("UPDATE full_pass_runs SET due_at = clock_timestamp(), created_at = created_at - interval '59.5 s'")
        claim = await world.claimed()
        assert await world.ledger.put_back_in_grace(claim, 5, 60)
        assert await world.value("SELECT due_at = created_at + interval '60 s' FROM full_pass_runs")

    in_world(database_url, work)


def test_a_failure_counts_and_leaves_its_code(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        assert await world.ledger.put_back_failed(claim, "coverage_too_low", "half of it", 0)
        again = await world.claimed()
        assert (again.failures, again.error_code, again.error_detail) == (1, "coverage_too_low", "half of it")

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("how", ["put_back", "outage", "grace", "failed"])
def test_who_lost_a_run_cannot_hand_it_back(database_url: str, how: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.sql("UPDATE full_pass_runs SET attempt = attempt + 1")
        ledger = world.ledger
        ways = {
            "put_back": ledger.put_back(claim),
            "outage": ledger.put_back_for_outage(claim, 1, 1, None),
            "grace": ledger.put_back_in_grace(claim, 1, 60),
            "failed": ledger.put_back_failed(claim, "internal", "", 0),
        }
        chosen = ways.pop(how)
        for other in ways.values():
            other.close()
        assert not await chosen
        assert (await world.run(claim.run_id))["status"] == "running"

    in_world(database_url, work)
