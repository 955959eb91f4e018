"""The verdict on a replay that was killed: each thing that must not be is found."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.chaos.replay import Replayed, ReplayPlan

WELL = Replayed(
    ReplayPlan(users=100, seed=1, workers=2, model_concurrency=16),
    budget_usd=Decimal(5),
    in_flight_usd=Decimal(1),
    spent_at_stop_usd=Decimal("5.9"),
    completed_at_stop=50,
    held_at_stop=50,
    asked_again=16,
)


def test_what_is_as_it_must_be_is_not_wrong() -> None:
    assert WELL.wrong() == []
    assert "duplicates 0, losses 0" in WELL.figures()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spent_at_stop_usd": Decimal("6.1")}, "$6.1000 were spent where $6.0000 were the most"),
        ({"completed_at_stop": 100}, "the budget did not end in the middle: 100 runs had completed"),
        ({"completed_at_stop": 0}, "the budget did not end in the middle: 0 runs had completed"),
        ({"asked_again": 17}, "17 calls were bought twice, where a worker has 16 in flight"),
        ({"duplicates": ["one"]}, "one"),
        ({"losses": ["two"]}, "two"),
        ({"others": ["three"]}, "three"),
    ],
)
def test_each_fault_is_found(change: dict[str, Any], said: str) -> None:
    assert replace(WELL, **change).wrong() == [said]
