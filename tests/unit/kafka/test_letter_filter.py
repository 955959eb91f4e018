"""Which dead letters an operator chooses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from consumer.kafka.dead_letters import EVERY_LETTER, LetterFilter
from tests.unit.kafka.records import HandMadeRecord

WRITTEN_AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
LETTER = HandMadeRecord(
    b"?", headers=[("dead_letter_reason", b"not_json")], partition=1, offset=7, timestamp=int(WRITTEN_AT.timestamp() * 1000)
)


def test_a_letter_is_chosen_when_it_fits_all_that_is_given() -> None:
    later = WRITTEN_AT + timedelta(milliseconds=1)
    assert EVERY_LETTER.fits(LETTER)
    assert LetterFilter(reasons=("x", "not_json"), since=WRITTEN_AT, until=later).fits(LETTER)
    assert not LetterFilter(reasons=("x",)).fits(LETTER)
    assert not LetterFilter(since=later).fits(LETTER)
    assert not LetterFilter(until=WRITTEN_AT).fits(LETTER)
    assert LetterFilter(places={(1, 7)}).fits(LETTER)
    assert not LetterFilter(places={(0, 7), (1, 8)}).fits(LETTER)


def test_partitions_that_can_hold_nothing_that_fits_are_not_read() -> None:
    assert EVERY_LETTER.reads(3)
    assert [partition for partition in range(4) if LetterFilter(partitions=(1, 2)).reads(partition)] == [1, 2]
    assert [partition for partition in range(4) if LetterFilter(places={(3, 1)}).reads(partition)] == [3]
