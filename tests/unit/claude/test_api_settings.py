"""Settings with which no client of the API can be made."""

from __future__ import annotations

import pytest

from consumer.claude.api import Api
from consumer.errors import ConfigurationError
from consumer.settings import Settings


def test_without_a_key_it_says_which_variable_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
        Api(Settings(ANTHROPIC_API_KEY=None))


def test_an_address_without_a_scheme_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="ANTHROPIC_BASE_URL"):
        Api(Settings(ANTHROPIC_API_KEY="sk-ant-test", ANTHROPIC_BASE_URL="api.example.com"))


@pytest.mark.parametrize("key", ["two\nlines", "ключ"])
def test_a_key_that_can_be_no_header_is_a_configuration_error_that_does_not_quote_it(key: str) -> None:
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY") as caught:
        Api(Settings(ANTHROPIC_API_KEY=key))
    assert key not in str(caught.value)
