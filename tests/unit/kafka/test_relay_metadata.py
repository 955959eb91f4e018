"""What the relay keeps in Kafka."""

from __future__ import annotations

import uuid

import pytest

from consumer.kafka.connection import KafkaTrouble
from consumer.kafka.relay import BATCH_ROWS, from_metadata, relay_name, to_metadata
from consumer.settings import Settings

KAFKA_KEEPS_BYTES = 4_096


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
