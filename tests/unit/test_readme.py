"""The numbers in the README are those of the code."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from pydantic import BaseModel

from consumer.claude.models import model_of
from consumer.settings import Settings, variable_of
from schemas.events import MemorySaved, QuickPassCompleted, V2Completed, V2Failed

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
DEFAULTS = {variable_of(name, field): field.default for name, field in Settings.model_fields.items()}
ROWS = re.findall(r"^\| ((?:`FULL_PASS_\w+`(?:, )?)+) \| ([^|]+) \|", README, re.MULTILINE)


def shown(default: object) -> str:
    if default is None:
        return "none"
    if default == "":
        return "empty"
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize(("variables", "defaults"), ROWS)
def test_the_configuration_table_shows_the_defaults(variables: str, defaults: str) -> None:
    names = re.findall(r"FULL_PASS_\w+", variables)
    assert [text.strip(" `") for text in defaults.split(",")] == [shown(DEFAULTS[name]) for name in names]


def test_the_cost_of_a_run_assumes_the_default_model_at_its_price() -> None:
    model = model_of(DEFAULTS["FULL_PASS_MODEL"])
    assert model is not None
    price = model.price
    said = re.search(r"\*\* with `([\w-]+)` at \$(\S+) per million input tokens and \$(\S+) per\s+million output", README)
    assert said is not None
    assert said.groups() == (model.name, str(price.input_usd_per_mtok), str(price.output_usd_per_mtok))
    for tokens_in, tokens_out, dollars in re.findall(r"\| ([\d.]+) million \| ([\d.]+) million \| (\d+) \|", README):
        assert price.cost_usd(int(float(tokens_in) * 1e6), int(float(tokens_out) * 1e6)) == pytest.approx(int(dollars), abs=1)


def test_the_retirement_of_the_default_model_is_told_as_it_is_known() -> None:
    model = model_of(DEFAULTS["FULL_PASS_MODEL"])
    assert model is not None
    assert model.retires_on is None
    assert model.not_retired_before == date(2026, 10, 15)
    assert "*not sooner than 15 October 2026*" in README
    assert "no retirement date is announced" in README


@pytest.mark.parametrize("event", [QuickPassCompleted, MemorySaved, V2Completed, V2Failed])
def test_the_readme_has_an_example_of_each_event_that_the_contract_accepts(event: type[BaseModel]) -> None:
    examples = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 4
    accepted = 0
    for example in examples:
        try:
            event.model_validate_json(example)
            accepted += 1
        except ValueError:
            continue
    assert accepted == 1
