"""What a replay's cost is guessed from, in the order of how good a guess it is."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from consumer.commands.replay_figures import Adding, Figures
from consumer.full_pass.sizes import MESSAGES_OF_AN_EXPORT, Sizes
from consumer.postgres.selection import Picked
from consumer.settings import Settings

HAIKU = "claude-haiku-4-5-20251001"
RECORDED: dict[str, Any] = {
    "model": HAIKU,
    "model_calls": 10,
    "input_tokens": 20_000,
    "output_tokens": 4_000,
    "cost_usd": Decimal("0.04"),
}
SIZES = Sizes(HAIKU, 2_000)


def picked(user: int, standing: str = "new", **known: Any) -> Picked:
    nothing = dict.fromkeys(("message_count", "model", "model_calls", "input_tokens", "output_tokens", "cost_usd"))
    return Picked(UUID(int=user), standing, **{**nothing, "chunks": 0, "chunk_tokens": 0, "answers_usd": Decimal(0), **known})


def figures(*all_picked: Picked, per_minute: float | None = None, **settings: Any) -> Figures:
    adding = Adding(Settings(model=HAIKU, **settings))
    for each in all_picked:
        adding.add(each)
    return adding.figures(per_minute)


def test_what_an_earlier_run_bought_comes_before_chunks_and_those_before_messages() -> None:
    everything: dict[str, Any] = {"chunks": 100, "chunk_tokens": 190_000, "message_count": 50}
    assert figures(picked(1, **RECORDED, **everything)).cost_usd == Decimal("0.04")
    found = figures(picked(1, **everything))
    assert found.cost_usd == round(SIZES.of_chunks(100, 190_000).cost_usd, 6)
    assert set(found.known_from) == {"chunks"}
    assert set(figures(picked(1, message_count=50)).known_from) == {"message_count"}


def test_tokens_bought_of_another_model_are_priced_as_this_ones() -> None:
    dear = RECORDED | {"model": "claude-opus-5", "cost_usd": Decimal(9)}
    assert figures(picked(1, **dear)).cost_usd == Decimal("0.04")
    assert figures(picked(1, **RECORDED | {"cost_usd": None})).cost_usd == Decimal("0.04")


def test_users_of_whom_nothing_is_known_cost_what_the_others_do_on_average() -> None:
    found = figures(picked(1, **RECORDED), picked(2), picked(3))
    assert (found.cost_usd, found.calls, found.input_tokens) == (Decimal("0.12"), 30, 60_000)
    assert found.shares() == {"recorded": {"runs": 1, "share": 0.3333}, "sample": {"runs": 2, "share": 0.6667}}


def test_where_nothing_is_known_of_anybody_an_assumed_export_stands_for_each() -> None:
    found = figures(picked(1), picked(2))
    assert found.cost_usd == round(2 * SIZES.of_messages(MESSAGES_OF_AN_EXPORT).cost_usd, 6)
    assert found.shares() == {"constant": {"runs": 2, "share": 1.0}}


def test_who_gets_no_run_costs_nothing_and_is_counted() -> None:
    standings = ("forgotten", "filled", "passed_over", "superseded", "superseded")
    found = figures(*(picked(user, standing, **RECORDED) for user, standing in enumerate(standings)))
    assert (found.forgotten, found.filled, found.passed_over, found.superseded) == (1, 1, 1, 2)
    assert (found.users, found.runs, found.cost_usd, found.calls) == (2, 2, Decimal(0), 0)


def test_several_keys_of_a_user_are_one_user_whose_answers_save_once() -> None:
    answers: dict[str, Any] = {"answers_usd": Decimal("0.03")}
    found = figures(picked(1, **RECORDED, **answers), picked(1, **RECORDED, **answers), picked(2, **RECORDED))
    assert (found.users, found.runs, found.answers_save_usd_at_most) == (2, 3, Decimal("0.03"))


def test_recorded_answers_save_no_more_than_a_run_costs() -> None:
    assert figures(picked(1, **RECORDED, answers_usd=Decimal(7))).answers_save_usd_at_most == Decimal("0.04")


def test_time_follows_from_what_a_worker_does_at_once_and_from_the_rate() -> None:
    many = [picked(user, **RECORDED) for user in range(80)]
    one_by_one = figures(*many, run_concurrency=1, model_concurrency=1).seconds
    assert one_by_one == 80 * (60 + 8 * 5)
    assert figures(*many, run_concurrency=8, model_concurrency=8).seconds == one_by_one / 8
    assert figures(*many, per_minute=0.5).seconds == 80 * 120


@pytest.mark.parametrize("tokens_per_call", [1, 2_000, 100_000])
def test_a_larger_export_never_costs_less(tokens_per_call: int) -> None:
    sizes = Sizes(HAIKU, tokens_per_call)
    costs = [sizes.of_messages(messages).cost_usd for messages in (0, 1, 10, 100, 1_000, 10_000, 100_000)]
    assert costs == sorted(costs)
    assert costs[0] > 0


@pytest.mark.parametrize(
    ("chunks", "tokens", "tokens_per_call", "dollars"),
    [
        (50_000, 6_250_000, 2_000, 32),
        (18_000, 9_250_000, 2_000, 41),
        (50_000, 6_250_000, 8_000, 27),
        (18_000, 9_250_000, 8_000, 33),
    ],
)
def test_sizes_alone_come_within_a_fifth_of_the_estimate_of_the_export_itself(
    chunks: int, tokens: int, tokens_per_call: int, dollars: int
) -> None:
    """The README has what `full-pass estimate` said of two exports of 100 MB."""
    assert 0.8 < float(Sizes(HAIKU, tokens_per_call).of_chunks(chunks, tokens).cost_usd) / dollars < 1.2
