"""How commands speak to people and to scripts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from rich.console import Console

from consumer.commands import output
from consumer.commands.output import print_pairs, print_rows, to_json

USER = UUID(int=7)


def test_a_script_gets_times_in_utc_ids_as_texts_and_money_as_numbers() -> None:
    there = datetime(2026, 11, 24, 13, tzinfo=timezone(timedelta(hours=1)))
    document = [{"at": there, "id": USER, "cost_usd": Decimal("0.25"), "none": None, "name": "東京"}]
    [found] = json.loads(to_json(document))
    assert found == {"at": "2026-11-24T12:00:00.000000Z", "id": str(USER), "cost_usd": 0.25, "none": None, "name": "東京"}


def test_what_has_no_json_form_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="bytes has no JSON form"):
        to_json({"x": b"x"})


def test_a_table_shows_the_columns_asked_for_and_whole_ids(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"run_id": USER, "at": datetime(2026, 11, 24, 9, 30, tzinfo=UTC), "cost": Decimal("0.2500"), "code": None, "no": 1}]
    print_rows(rows, ("run_id", "at", "cost", "code"), "nothing")
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["run_id", "at", "cost", "code"]
    assert row.split() == [str(USER), "2026-11-24", "09:30:00", "0.25", "–"]


def test_at_a_narrow_terminal_each_row_stands_by_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_console", lambda: Console(width=40, markup=False, emoji=False))
    print_rows([{"run_id": USER, "code": "export_empty"}, {"run_id": USER, "code": None}], ("run_id", "code"), "nothing")
    said = capsys.readouterr().out
    assert said.count("export_empty") == 1
    assert said.replace("\n", "").replace(" ", "").count(str(USER)) == 2


def test_text_that_looks_like_an_emojis_name_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_pairs({"reason": "a :bomb: of events"})
    assert "a :bomb: of events" in capsys.readouterr().out


def test_without_rows_a_sentence_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], ("run_id",), "no runs")
    assert capsys.readouterr().out == "no runs\n"


def test_text_that_looks_like_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_pairs({"error_detail": "[red]expected[/red]", "usage": {"calls": 2}})
    said = capsys.readouterr().out
    assert "[red]expected[/red]" in said
    assert "calls 2" in said
