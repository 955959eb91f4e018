"""Prices, and what is known of models."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.claude.models import dearest, known_models, model_of, price_of
from consumer.settings import Settings

tokens = st.integers(0, 2_000_000)


def test_a_call_of_the_default_model_costs_what_the_price_list_says() -> None:
    price = price_of("claude-haiku-4-5-20251001")
    assert price is not None
    assert price.cost_usd(1_000_000, 0) == Decimal(1)
    assert price.cost_usd(0, 1_000_000) == Decimal(5)
    assert price.cost_usd(1_234, 567) == Decimal("0.004069")


def test_a_token_of_the_cheapest_model_is_not_rounded_away() -> None:
    price = price_of("claude-haiku-5-5")
    assert price is not None
    assert price.cost_usd(1, 0) == Decimal("0.0000001")


def test_a_long_request_costs_its_own_price_from_the_first_token() -> None:
    short, long = price_of("claude-haiku-5-5", 100_000), price_of("claude-haiku-5-5", 100_001)
    assert short is not None
    assert long is not None
    assert long.cost_usd(100_001, 0) > 4 * short.cost_usd(100_000, 0)


@pytest.mark.parametrize("name", ["claude-haiku-9", "", "gpt-5", "claude-haiku-4-5-20250101"])
def test_a_model_that_is_not_in_the_table_has_no_price(name: str) -> None:
    """Its cost is null in `v2-completed`; a guessed one would be believed."""
    assert price_of(name) is None


def test_an_alias_is_its_model() -> None:
    assert model_of("claude-haiku-4-5") == model_of("claude-haiku-4-5-20251001")


@given(tokens, tokens)
def test_no_known_model_is_dearer_than_the_dearest(input_tokens: int, output_tokens: int) -> None:
    """Where a limit is held, an unknown model counts as this one."""
    limit = dearest().cost_usd(input_tokens, output_tokens)
    for model in known_models():
        assert model.price_for(input_tokens).cost_usd(input_tokens, output_tokens) <= limit


def test_the_default_model_is_known_and_takes_what_the_stages_ask_for() -> None:
    default = model_of(Settings().model)
    assert default is not None
    assert default.structured_output
    assert default.max_output_tokens >= 8_192
    assert default.context_tokens >= 200_000
    assert default.not_retired_before == date(2026, 10, 15)


def test_names_and_aliases_stand_in_the_table_once() -> None:
    names = [model.name for model in known_models()]
    assert len(names) == len(set(names))
