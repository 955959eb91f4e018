"""What the values of options mean that several commands have: times, places in a topic, and how large a number may be."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from consumer.errors import ConfigurationError

MOST_INTEGER = 2**31 - 1
MOST_BIGINT = 2**63 - 1
_PLACE = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")


def moment_of(option: str, given: str | None) -> datetime | None:
    """The instant that was given; a plain date is its midnight in UTC.

    Raises:
        ConfigurationError: when it is none.
    """
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{option}: expected ISO 8601, such as 2026-10-01 or 2026-10-01T12:30:00Z") from None


def range_of(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """From when on, and before when.

    Raises:
        ConfigurationError: when one is no time, or nothing lies between them.
    """
    begin, end = moment_of("--since", since), moment_of("--until", until)
    require_order(begin, end)
    return begin, end


def require_order(since: datetime | None, until: datetime | None) -> None:
    """Make sure that something lies between the two.

    Raises:
        ConfigurationError: when nothing does.
    """
    if since is not None and until is not None and until <= since:
        raise ConfigurationError("--until: expected a time after --since")


def places_of(option: str, given: list[str] | None) -> list[tuple[int, int]]:
    """Partitions and offsets, as they were given.

    Raises:
        ConfigurationError: when one can't be read.
    """
    found = []
    for each in given or ():
        match = _PLACE.fullmatch(each)
        if match is None:
            raise ConfigurationError(f"{option}: expected PARTITION:OFFSET, such as 0:1500")
        found.append((int(match[1]), int(match[2])))
    return found
