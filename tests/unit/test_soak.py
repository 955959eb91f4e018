"""How a soak is judged: what stays, and what only seems to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.samples import MEGABYTE, Sample, judge

FLAT = [
    Sample(
        seconds=10.0 * number,
        runs=200 * number,
        resident_bytes=170 * MEGABYTE,
        files=34,
        tasks=42,
        connections=13,
        longest_transaction_seconds=0.1,
        due=200,
        unpublished=5,
        answers=300,
        own_bytes=1_000 * 200 * number,
        chunk_bytes=2_000 * 200 * number,
    )
    for number in range(16)
]


def test_what_stays_the_same_is_flat() -> None:
    lines, flat = judge(FLAT)
    assert flat
    assert not [line for line in lines if "grows" in line]


def test_what_grows_while_the_worker_warms_up_counts_for_nothing() -> None:
    warming = [replace(each, resident_bytes=100 * MEGABYTE + number) for number, each in enumerate(FLAT[:4])]
    assert judge(warming + FLAT[4:])[1]


@pytest.mark.parametrize(
    ("name", "a_sample"),
    [("resident_bytes", 2 * MEGABYTE), ("files", 1), ("tasks", 2), ("connections", 1), ("unpublished", 50), ("answers", 100)],
)
def test_what_grows_with_the_runs_is_named(name: str, a_sample: int) -> None:
    growing = [replace(each, **{name: getattr(each, name) + number * a_sample}) for number, each in enumerate(FLAT)]
    lines, flat = judge(growing)
    assert not flat
    assert [line.split(":")[0] for line in lines if "it grows" in line] == [name]


def test_a_transaction_that_stays_open_is_not_flat() -> None:
    assert not judge([*FLAT[:9], replace(FLAT[9], longest_transaction_seconds=20.0), *FLAT[10:]])[1]


def test_runs_that_take_more_room_each_are_not_flat_while_a_row_for_each_is() -> None:
    assert not judge([replace(each, own_bytes=each.own_bytes + 40_000 * number**2) for number, each in enumerate(FLAT)])[1]


def test_runs_that_take_ever_longer_are_not_flat() -> None:
    assert not judge([replace(each, seconds=each.seconds * (1 + number / 10)) for number, each in enumerate(FLAT)])[1]


def test_a_few_samples_say_nothing() -> None:
    with pytest.raises(ValueError, match="more runs"):
        judge(FLAT[:7])
