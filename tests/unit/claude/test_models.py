"""Prices, and what is known of models."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import get_args

import pytest
from anthropic.resources.messages import DEPRECATED_MODELS
from anthropic.types.model import Model
from hypothesis import given
from hypothesis import strategies as st

from consumer.claude.models import dearest, known_models, model_of, price_of, tokens_of_text, unfit
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


def test_every_model_of_the_table_takes_what_is_asked_of_it() -> None:
    assert [model.name for model in known_models() if unfit(model)] == []


def test_a_model_that_answers_too_briefly_or_without_structure_is_unfit_and_it_is_said_why() -> None:
    fit = known_models()[0]
    assert "4096" in str(unfit(replace(fit, max_output_tokens=4_096)))
    assert "structured output" in str(unfit(replace(fit, structured_output=False)))


def test_every_model_that_the_sdk_names_and_that_can_be_called_is_known() -> None:
    """A known price is a price in `v2-completed`. A new SDK that names a new model makes this fail: look its price up."""
    named = {name for name in get_args(get_args(Model)[0]) if name not in DEPRECATED_MODELS}
    assert {name for name in named if model_of(name) is None} == set()


def test_newer_models_and_unknown_ones_count_more_tokens_for_the_same_text() -> None:
    """Measured in the tokens of the default model, their estimates would be too low by a quarter."""
    counts = [tokens_of_text(name, 4_000) for name in ("claude-haiku-4-5", "claude-haiku-5-5", "claude-haiku-9")]
    assert counts == [1_000, 1_300, 1_300]
