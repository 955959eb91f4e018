"""What the relay keeps in Kafka, and what it sends at most."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from consumer.kafka.connection import KafkaTrouble
from consumer.kafka.messages import to_message
from consumer.kafka.relay import BATCH_ROWS, from_metadata, relay_name, to_metadata
from consumer.postgres.outbox import OutboxRow
from consumer.settings import Settings
from schemas.events import MemorySaved, V2Completed, V2Failed
from schemas.examples import EXAMPLES, TRACEPARENT

KAFKA_KEEPS_BYTES = 4_096
KAFKA_TAKES_BYTES = 1_048_588
LONGEST = "\N{GRINNING FACE}"  # four bytes


def test_the_ids_of_a_whole_batch_fit_into_what_kafka_keeps_with_an_offset() -> None:
    ids = [uuid.uuid4() for _ in range(BATCH_ROWS)]
    metadata = to_metadata(ids)
    assert len(metadata) < KAFKA_KEEPS_BYTES
    assert from_metadata(metadata) == ids


@pytest.mark.parametrize("nothing", ["", None])
def test_a_group_without_an_offset_has_no_last_batch(nothing: str | None) -> None:
    assert from_metadata(nothing) == []


@pytest.mark.parametrize("foreign", ["my consumer", "AAAA", "%%%%"])
def test_an_offset_that_no_relay_committed_stops_the_relay(foreign: str) -> None:
    """Going on would send the last batch twice, for all it knows."""
    with pytest.raises(KafkaTrouble, match="CONSUMER_GROUP"):
        from_metadata(foreign)


def test_environments_on_one_cluster_do_not_fence_each_other() -> None:
    names = {
        relay_name(Settings(topic_prefix=prefix, consumer_group=group)) for prefix in ("", "staging.") for group in ("a", "b")
    }
    assert len(names) == 4


@pytest.mark.parametrize("event", [MemorySaved, V2Completed, V2Failed])
def test_no_event_of_ours_is_ever_too_large_for_a_topic(event: type[MemorySaved | V2Completed | V2Failed]) -> None:
    """A message that no broker takes would stop the relay, and every event behind it, for good."""
    longest = EXAMPLES[event].model_dump(mode="json") | {"idempotency_key": LONGEST * 200}
    if event is V2Failed:
        longest |= {"error_detail": LONGEST * 500, "profile_version": 2**63 - 1, "attempts": 2**31 - 1}
    data = event.model_validate(longest).model_dump_json()
    row = OutboxRow(1, uuid.uuid4(), event.event_type, uuid.uuid4(), data, TRACEPARENT, datetime.now(UTC))
    message = to_message(row)
    size = len(message.key) + len(message.value) + sum(len(name) + len(value) for name, value in message.headers)
    assert size < KAFKA_TAKES_BYTES / 100
