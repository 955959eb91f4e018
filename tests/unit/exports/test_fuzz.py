"""A little of what `python -m tests.fuzz` does for as long as one likes."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from tests.fuzz import check
from tests.unit.exports.mutations import made_file


@pytest.mark.parametrize("seed", range(4))
def test_a_file_that_was_an_export_once_is_read_or_refused(seed: int) -> None:
    """The seed is the parameter, and a file that breaks the reader is made again by its two numbers."""
    seen: Counter[str] = Counter()
    for number in range(60):
        draw = Random(f"{seed} {number}")
        seen[check(made_file(draw), draw, compared=number % 4 == 0)] += 1
    assert seen["read"]
    assert seen["export_unreadable"]
