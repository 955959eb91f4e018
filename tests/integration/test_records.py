"""Recorded answers, spend, chunks, outbox and wake-ups on PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from consumer.claude.budget import DayBudget
from consumer.errors import LostLease, OperatorTrouble
from consumer.postgres.answers import BilledAnswer
from consumer.postgres.chunks import PAGE_CHUNKS, Chunk
from consumer.postgres.database import Database, DatabaseUnavailable, DataRefused
from consumer.postgres.outbox import OutboxRow
from consumer.postgres.retention import Retention
from consumer.postgres.spend import Spend
from consumer.postgres.wakeups import OUTBOX_CHANNEL, Wakeups
from schemas.events import ErrorCode
from tests.integration.postgres_world import FIRST, LEASE_SECONDS, World, in_world

SHA = "ab" * 32


def billed(sha256: str = SHA, cost_usd: str | None = "0.25", content: str = "[]") -> BilledAnswer:
    cost = None if cost_usd is None else Decimal(cost_usd)
    return BilledAnswer(sha256, "facts", "claude", content, "end_turn", 100, 20, cost, cost or Decimal(9))


def test_a_recorded_answer_is_found_by_every_run_of_its_user_and_by_no_other(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.answers.record(claim.run_id, claim.user_id, billed())
        found = await world.answers.find(claim.user_id, uuid4(), SHA)
        assert found is not None
        assert (found.stop_reason, found.input_tokens, found.output_tokens, found.verdict) == ("end_turn", 100, 20, None)
        assert await world.answers.find(uuid4(), claim.run_id, SHA) is None
        assert await world.answers.recorded(claim.user_id, uuid4()) == {bytes.fromhex(SHA)}

    in_world(database_url, work)


@pytest.mark.guarantee("G8")
def test_an_unusable_answer_serves_the_run_that_bought_it_until_a_new_one_takes_its_place(database_url: str) -> None:
    async def work(world: World) -> None:
        claim, other = await world.started(), await world.started()
        await world.answers.record(claim.run_id, claim.user_id, billed())
        await world.answers.judge(claim.user_id, SHA, "truncated")
        mine = await world.answers.find(claim.user_id, claim.run_id, SHA)
        assert mine is not None
        assert mine.verdict == "truncated"
        assert await world.answers.find(claim.user_id, other.run_id, SHA) is None
        assert await world.answers.recorded(claim.user_id, other.run_id) == set()
        await world.answers.record(other.run_id, claim.user_id, billed(content='["new"]'))
        again = await world.answers.find(claim.user_id, claim.run_id, SHA)
        assert again is not None
        assert (again.content, again.verdict) == ('["new"]', None)

    in_world(database_url, work)


def test_every_answer_adds_to_what_its_run_and_the_hour_have_cost(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        for number in range(3):
            await world.answers.record(claim.run_id, claim.user_id, billed(f"{number:064x}"))
        run = await world.run(claim.run_id)
        assert (run["model_calls"], run["input_tokens"], run["output_tokens"]) == (3, 300, 60)
        assert run["cost_usd"] == Decimal("0.75")
        assert await world.value("SELECT sum(cost_usd) FROM full_pass_spend") == Decimal("0.75")

    in_world(database_url, work)


def test_a_cost_that_is_not_known_makes_the_runs_cost_unknown_and_counts_for_the_day_all_the_same(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.answers.record(claim.run_id, claim.user_id, billed())
        await world.answers.record(claim.run_id, claim.user_id, billed("cd" * 32, cost_usd=None))
        assert (await world.run(claim.run_id))["cost_usd"] is None
        assert await world.value("SELECT cost_usd FROM full_pass_spend") == Decimal("9.25")

    in_world(database_url, work)


def test_an_answer_is_a_step_forward(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.sql("UPDATE full_pass_runs SET failures = 2, held_up_since = now(), error_code = 'internal'")
        await world.answers.record(claim.run_id, claim.user_id, billed())
        run = await world.run(claim.run_id)
        assert (run["failures"], run["held_up_since"], run["error_code"]) == (0, None, None)

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
def test_who_lost_the_run_still_records_what_was_paid_for_and_touches_no_end(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.profiles.end_failed(claim, ErrorCode.COVERAGE_TOO_LOW, "half")
        await world.answers.record(claim.run_id, claim.user_id, billed())
        run = await world.run(claim.run_id)
        assert (run["status"], run["error_code"], run["model_calls"]) == ("failed", "coverage_too_low", 1)

    in_world(database_url, work)


@pytest.mark.guarantee("G11")
def test_an_answer_of_a_run_that_is_gone_is_not_kept_and_counts_for_the_day_all_the_same(database_url: str) -> None:
    """Its user was forgotten while the call was in flight: the money is spent, and the content must go nowhere."""

    async def work(world: World) -> None:
        with pytest.raises(LostLease):
            await world.answers.record(uuid4(), uuid4(), billed())
        assert await world.sql("SELECT 1 FROM full_pass_model_calls") == []
        assert await world.value("SELECT cost_usd FROM full_pass_spend") == Decimal("0.25")

    in_world(database_url, work)


async def spent(world: World, hours_ago: float, usd: float) -> None:
    await world.sql(
        "INSERT INTO full_pass_spend VALUES (date_trunc('hour', now()) - make_interval(hours => :ago), :usd)",
        ago=hours_ago,
        usd=usd,
    )


def test_the_days_spend_is_that_of_the_last_24_hours_and_tells_when_there_is_room_again(database_url: str) -> None:
    async def work(world: World) -> None:
        for hours_ago, usd in ((30, 100), (20, 6), (10, 3), (1, 2)):
            await spent(world, hours_ago, usd)
        spend = Spend(world.database)
        assert (await spend.last_day(Decimal(100))).spent_usd == 11
        assert (await spend.last_day(Decimal(12))).room_in_seconds is None
        after_the_first = (await spend.last_day(Decimal(10))).room_in_seconds
        after_the_second = (await spend.last_day(Decimal(5))).room_in_seconds
        assert after_the_first is not None
        assert after_the_second is not None
        assert 3 * 3600 < after_the_first <= 5 * 3600
        assert 13 * 3600 < after_the_second <= 15 * 3600

    in_world(database_url, work)


def test_a_day_that_is_spent_holds_calls_back_as_the_operators_matter(database_url: str) -> None:
    async def work(world: World) -> None:
        budget = DayBudget(Spend(world.database), Decimal(5))
        await budget.require_room()
        budget.spent(Decimal(5))
        with pytest.raises(OperatorTrouble) as caught:
            await budget.require_room()
        assert caught.value.code == "budget_exceeded"
        assert "FULL_PASS_MAX_COST_USD_PER_DAY" in caught.value.detail
        await DayBudget(Spend(world.database), None).require_room()

    in_world(database_url, work)


def test_the_day_counts_what_other_workers_spend(database_url: str) -> None:
    async def work(world: World) -> None:
        await spent(world, 0, 5)
        assert await DayBudget(Spend(world.database), Decimal(5)).room_in_seconds() is not None
        assert await DayBudget(Spend(world.database), Decimal(6)).room_in_seconds() is None

    in_world(database_url, work)


def chunk(conversation: str = "c", index: int = 0, content: str = "text", days: float = 0) -> Chunk:
    return Chunk(conversation, "title", content, len(content) // 4, index, 1, 2, True, FIRST + timedelta(days=days))


async def contents(world: World, claim) -> list[str]:  # type: ignore[no-untyped-def]
    return [found.content async for page in world.chunks.oldest_first(claim) for found in page]


def test_all_old_chunks_of_the_user_give_way_and_nobody_elses(database_url: str) -> None:
    async def work(world: World) -> None:
        claim, other = await world.started(), await world.started()
        await world.chunks.replace(other, [[chunk(content="theirs")]])
        await world.chunks.replace(claim, [[chunk(content="old")], [chunk(index=1, content="older")]])
        await world.chunks.replace(claim, [[chunk(content="new")]])
        assert await contents(world, claim) == ["new"]
        assert await contents(world, other) == ["theirs"]
        assert await world.value("SELECT DISTINCT chunk_tier FROM conversation_chunks") == "medium"

    in_world(database_url, work)


def test_a_changeover_that_fails_leaves_the_old_chunks(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.chunks.replace(claim, [[chunk(content="old")]])
        with pytest.raises(DataRefused):
            await world.chunks.replace(claim, [[chunk(content="new")], [chunk(content="nul \x00")]])
        assert await contents(world, claim) == ["old"]
        await world.sql("UPDATE full_pass_runs SET attempt = attempt + 1")
        with pytest.raises(LostLease):
            await world.chunks.replace(claim, [[chunk(content="new")]])
        assert await contents(world, claim) == ["old"]

    in_world(database_url, work)


def test_chunks_come_back_oldest_first_and_by_code_point_over_all_pages(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        made = [chunk("B", 0, "x", 1), chunk("a", 1, "x", 1), chunk("a", 0, "Z", 1), chunk("a", 0, "z", 1), chunk("Ä", 0, "x", 1)]
        made += [chunk("first", number, f"n{number}", -1) for number in range(2 * PAGE_CHUNKS + 1)]
        await world.chunks.replace(claim, [made[::-1]])
        pages = [page async for page in world.chunks.oldest_first(claim)]
        assert [len(page) for page in pages] == [PAGE_CHUNKS, PAGE_CHUNKS, 6]
        found = [each for page in pages for each in page]
        assert found == sorted(made, key=lambda each: (each.created_at, each.conversation_id, each.chunk_index, each.content))

    in_world(database_url, work)


def test_chunks_that_are_the_same_in_everything_are_all_read_also_over_page_borders(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        made = [chunk("a")] * (PAGE_CHUNKS - 1) + [chunk("b")] * (2 * PAGE_CHUNKS + 3) + [chunk("c")] * 2
        await world.chunks.replace(claim, [made])
        assert [each async for page in world.chunks.oldest_first(claim) for each in page] == made

    in_world(database_url, work)


@pytest.mark.guarantee("G10")
def test_no_transaction_is_held_between_pages(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.chunks.replace(claim, [[chunk(content=f"n{number}") for number in range(PAGE_CHUNKS + 1)]])
        async for _ in world.chunks.oldest_first(claim):
            open_ones = (
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
            )
            assert await world.value(open_ones) == 0

    in_world(database_url, work)


def test_published_events_are_marked_once_and_no_longer_read(database_url: str) -> None:
    async def work(world: World) -> None:
        claims = [await world.started() for _ in range(3)]
        for claim in claims:
            await world.profiles.end_failed(claim, ErrorCode.INTERNAL, "gone")
        rows = await world.outbox.unpublished(2)
        assert [row.user_id for row in rows] == [claim.user_id for claim in claims[:2]]
        assert (await world.outbox.backlog())[0] == 3
        ids = [row.event_id for row in rows]
        assert [await world.outbox.mark_published(ids), await world.outbox.mark_published(ids)] == [2, 0]
        left: list[OutboxRow] = await world.outbox.unpublished(10)
        assert [row.user_id for row in left] == [claims[2].user_id]

    in_world(database_url, work)


def test_a_fraction_of_a_day_is_kept_as_such(database_url: str) -> None:
    async def work(world: World) -> None:
        claim = await world.started()
        await world.answers.record(claim.run_id, claim.user_id, billed())
        await world.sql("UPDATE full_pass_model_calls SET created_at = now() - interval '11 hours'")
        assert await Retention(world.database, 0.5).expire() == (0, 0)
        await world.sql("UPDATE full_pass_model_calls SET created_at = now() - interval '13 hours'")
        assert await Retention(world.database, 0.5).expire() == (1, 0)

    in_world(database_url, work)


@pytest.mark.guarantee("G11")
def test_recorded_answers_and_published_events_expire_and_nothing_else(database_url: str) -> None:
    async def work(world: World) -> None:
        claim, waiting = await world.started(), await world.started()
        await world.answers.record(claim.run_id, claim.user_id, billed())
        await world.answers.record(claim.run_id, claim.user_id, billed("cd" * 32))
        for each in (claim, waiting):
            await world.profiles.end_failed(each, ErrorCode.INTERNAL, "gone")
        first, _ = await world.outbox.unpublished(10)
        await world.outbox.mark_published([first.event_id])
        await world.sql(
            "UPDATE full_pass_model_calls SET created_at = now() - interval '31 days' WHERE request_sha256 = :s", s=SHA
        )
        await world.sql("UPDATE full_pass_outbox SET published_at = now() - interval '31 days' WHERE published_at IS NOT NULL")
        await world.sql("UPDATE full_pass_outbox SET occurred_at = now() - interval '99 days'")
        assert await Retention(world.database, 30).expire() == (1, 1)
        assert await world.value("SELECT count(*) FROM full_pass_model_calls") == 1
        assert [row.user_id for row in await world.outbox.unpublished(10)] == [waiting.user_id]
        assert await world.value("SELECT count(*) FROM full_pass_runs") == 2

    in_world(database_url, work)


def test_the_relays_lock_has_one_holder_and_goes_with_its_session(database_url: str) -> None:
    async def work(world: World) -> None:
        async with Wakeups.connect(database_url, LEASE_SECONDS, (OUTBOX_CHANNEL,)) as second:
            async with Wakeups.connect(database_url, LEASE_SECONDS, (OUTBOX_CHANNEL,)) as first:
                assert [await first.try_lock("relay"), await second.try_lock("relay")] == [True, False]
                assert await second.try_lock("another")
            async with asyncio.timeout(5):
                while not await second.try_lock("relay"):
                    await asyncio.sleep(0.01)

    in_world(database_url, work)


@pytest.mark.guarantee("G6")
def test_a_session_that_says_nothing_for_a_lease_is_ended_with_its_lock(database_url: str) -> None:
    async def work(world: World) -> None:
        async with Wakeups.connect(database_url, 1, (OUTBOX_CHANNEL,)) as frozen:
            assert await frozen.try_lock("relay")
            async with Wakeups.connect(database_url, LEASE_SECONDS, ()) as other, asyncio.timeout(5):
                while not await other.try_lock("relay"):
                    await asyncio.sleep(0.05)
            with pytest.raises(DatabaseUnavailable):
                await frozen.ping()

    in_world(database_url, work)


@pytest.mark.parametrize("suffix", ["", "?sslmode=prefer&connect_timeout=3&channel_binding=prefer&application_name=theirs"])
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_every_form_of_a_database_url_leads_to_the_database(database_url: str, scheme: str, suffix: str) -> None:
    async def main() -> UUID:
        database = Database(database_url.replace("postgresql", scheme, 1) + suffix)
        try:
            async with database.transaction() as transaction:
                return UUID(str((await transaction.exec_driver_sql("SELECT gen_random_uuid()")).scalar_one()))
        finally:
            await database.close()

    assert asyncio.run(main())
