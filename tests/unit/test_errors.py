"""The tree of errors: what its docstring draws is what there is, and what is published fits."""

from __future__ import annotations

import inspect
import re

import pytest

from consumer import errors
from consumer.errors import (
    DETAIL_MAX_CHARS,
    FinalError,
    FullPassError,
    InvalidMessage,
    InvalidReason,
    LostLease,
    Outage,
    RunError,
    Superseded,
)
from schemas.events import ErrorCode


def _drawn() -> list[tuple[str, int]]:
    """Each name in the drawing and its depth."""
    lines = re.findall(r"^    ((?:│   |    )*)(?:[├└]── )?([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    indents = {name: line for line, name in lines}
    return [(name, len(indent) // 4) for name, indent in indents.items()]


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    defined = {name for name, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, FullPassError)}
    drawn = [name for name, _ in _drawn()]
    assert sorted(drawn) == sorted(defined)
    above: list[str] = []
    for match in re.finditer(r"^    (.*?)([A-Z]\w+)(?:  .*)?$", errors.__doc__ or "", re.MULTILINE):
        depth, name = len(match[1]) // 4, match[2]
        above[depth:] = [name]
        if depth:
            assert getattr(errors, name).__bases__ == (getattr(errors, above[depth - 1]),), name


def test_a_detail_is_never_longer_than_the_contract_allows() -> None:
    assert len(RunError(ErrorCode.INTERNAL, "x" * 1_000).detail) == DETAIL_MAX_CHARS == 500


@pytest.mark.parametrize(("error", "code"), [(Superseded(), "superseded"), (LostLease(), "internal")])
def test_errors_without_a_choice_know_their_code(error: RunError, code: str) -> None:
    assert error.code == code
    assert error.detail


def test_superseded_is_final_and_a_lost_lease_is_not() -> None:
    """The executor ends the one through the door and writes nothing for the other."""
    assert isinstance(Superseded(), FinalError)
    assert not isinstance(LostLease(), FinalError)


def test_an_outage_knows_when_to_come_back_only_if_somebody_said_so() -> None:
    assert Outage(ErrorCode.MODEL_UNAVAILABLE, "away").retry_after_seconds is None
    assert Outage(ErrorCode.MODEL_UNAVAILABLE, "away", 3).retry_after_seconds == 3


def test_an_invalid_message_keeps_its_code_apart_from_its_words() -> None:
    error = InvalidMessage(InvalidReason.NOT_JSON, "the value is no JSON")
    assert (error.reason, error.detail, str(error)) == ("not_json", "the value is no JSON", "not_json: the value is no JSON")
