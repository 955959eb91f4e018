"""What meets in the same moment: a renewal and the end of its run; a long save and the lease."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from consumer.postgres.chunks import Chunk
from consumer.postgres.runs import Claim
from tests.integration.executor_work import Work, accepted, at_work, pass_well, until, wait_for_status
from tests.integration.postgres_world import World, a_world, in_world
from tests.network import Link, Network, port_of


def test_a_run_that_ends_in_the_moment_of_a_renewal_is_not_counted_as_lost(database_url: str) -> None:
    """The renewal finds it ended before its own worker has heard of the commit."""
    ending: list[Link] = []
    claims: list[Claim] = []

    def watch(link: Link, piece: bytes) -> bytes | None:
        if b'"soulprint_sha256"' in piece:
            link.notes.add("ends the run")
        if "ends the run" in link.notes and b"COMMIT" in piece and not ending:
            ending.append(link)
            link.hold()
            return piece
        if ending and claims and renewal_of(claims[0]) in piece:
            asyncio.get_running_loop().call_later(0.1, ending[0].release)  # the renewal's answer comes first
        return None

    async def carry(work: Work, claim: Claim) -> None:
        claims.append(claim)
        await pass_well(work, claim)

    async def main(url: str) -> None:
        async with a_world(url) as world, at_work(world, carry) as work:
            run_id = await accepted(work)
            await wait_for_status(work, run_id, "completed")
            await until(lambda: work.sample("runs_ended_total", status="completed", code="") == 1)
            assert work.sample("leases_lost_total") == 0

    with Network(port_of(database_url), watch) as network:
        asyncio.run(main(network.leading_to(database_url)))


def renewal_of(claim: Claim) -> bytes:
    """What stands in no statement but the renewal: the run's id as the last of an array, and an array of attempts behind it."""
    return claim.run_id.bytes + struct.pack(">iiii", 28, 1, 0, 23)


def test_a_replacement_of_chunks_may_take_longer_than_a_lease_while_it_goes_on(database_url: str) -> None:
    """PostgreSQL ends a save whose client has been still for a lease, not one that works."""

    async def work(world: World) -> None:
        claim = await world.started()
        world.database.lease_seconds = 1
        began = time.monotonic()
        await world.chunks.replace(claim, slow_batches(4))
        assert time.monotonic() - began > 1.5
        assert await world.value("SELECT count(*) FROM conversation_chunks") == 4

    in_world(database_url, work)


def slow_batches(number: int) -> Iterator[Sequence[Chunk]]:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    for each in range(number):
        time.sleep(0.5)
        yield [Chunk(f"conversation {each}", "Title", "text", 1, 0, 1, 1, False, at)]
