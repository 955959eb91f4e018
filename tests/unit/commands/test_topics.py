"""How long `topics create` lets records be kept."""

from __future__ import annotations

import pytest

from consumer.commands.topics import to_milliseconds
from consumer.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [(None, None), ("-1", -1), ("31536000000", 31_536_000_000), ("7d", 604_800_000), ("12 h", 43_200_000), ("5m", 300_000)],
)
def test_a_time_with_a_unit_is_milliseconds(given: str | None, milliseconds: int | None) -> None:
    assert to_milliseconds(given) == milliseconds


@pytest.mark.parametrize("given", ["", "long", "7w", "-2", "1.5d", "9" * 5_000, "9" * 15 + "d"])
def test_what_kafka_can_not_count_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--retention: expected "):
        to_milliseconds(given)
