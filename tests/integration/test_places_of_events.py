"""Where in Kafka an event is, as far as it is known."""

from __future__ import annotations

from consumer.postgres.overview import Overview
from schemas.events import ErrorCode
from tests.integration.postgres_world import World, in_world


def test_a_mark_notes_the_place_of_each_event_and_leaves_it_open_where_only_the_ids_are_known(database_url: str) -> None:
    async def work(world: World) -> None:
        claims = [await world.started() for _ in range(3)]
        for claim in claims:
            await world.profiles.end_failed(claim, ErrorCode.INTERNAL, "gone")
        ids = [row.event_id for row in await world.outbox.unpublished(3)]
        await world.outbox.mark_published(ids[:2], [(4, 17), (0, 2**40)])
        await world.outbox.mark_published(ids[2:])  # what a relay finds in Kafka after a crash
        await world.outbox.mark_published(ids[:1], [(9, 9)])  # marked before
        shown = [(await Overview(world.database).show_run(claim.run_id))["events"][0] for claim in claims]
        places = [(event["kafka_partition"], event["kafka_offset"]) for event in shown]
        assert places == [(4, 17), (0, 2**40), (None, None)]
        assert all(event["published_at"] for event in shown)

    in_world(database_url, work)
