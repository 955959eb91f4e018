"""`full-pass estimate` from the inside: what it reads, what it says of models, and what it can't say anything about."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from consumer.claude.models import dearest
from consumer.commands.estimating import ExportEstimate, estimate_export
from consumer.errors import CommandError, ConfigurationError
from consumer.settings import Settings

PATH = "exports/e.json"
CONVERSATIONS = [
    {
        "id": f"c{number}",
        "title": f"Talk {number}",
        "create_time": 1_700_000_000 - number * 86_400,
        "messages": [
            {"role": "user", "content": f"I like tea, for the {number}th time. " * 40},
            {"role": "assistant", "content": "Good."},
        ],
    }
    for number in range(12)
]


def estimated(folder: Path, export: Any = CONVERSATIONS, path: str = PATH, **changes: Any) -> ExportEstimate:
    """The estimate of an export in the store."""
    (folder / "exports").mkdir(exist_ok=True)
    (folder / "exports" / "another.json").touch()
    if export is not None:
        (folder / PATH).write_bytes(export if isinstance(export, bytes) else json.dumps(export).encode())
    return asyncio.run(estimate_export(Settings(**{"EXPORT_STORE_URL": folder.as_uri(), **changes}), path))


def test_it_counts_what_is_there_and_needs_no_key(tmp_path: Path) -> None:
    """Nobody is asked: neither the model API, whose key is not set, nor PostgreSQL nor Kafka."""
    found = estimated(tmp_path, [*CONVERSATIONS, 7], ANTHROPIC_API_KEY=None, DATABASE_URL=None)
    assert (found.conversations, found.messages, found.chunks, found.skipped) == (12, 24, 12, 1)
    assert found.calls >= 4
    assert found.price_known
    assert found.seconds > 0


def test_the_same_export_in_another_order_has_the_same_estimate(tmp_path: Path) -> None:
    """A run reads chunks by time, however the export is sorted, and packs are cut by what stands side by side."""
    there, back = estimated(tmp_path), estimated(tmp_path, CONVERSATIONS[::-1])
    assert (there.calls, there.input_tokens, there.cost_usd) == (back.calls, back.input_tokens, back.cost_usd)


def test_a_model_without_a_known_price_is_taken_for_the_dearest(tmp_path: Path) -> None:
    found = estimated(tmp_path, model="claude-haiku-9")
    assert not found.price_known
    assert found.cost_usd == pytest.approx(dearest().cost_usd(found.input_tokens, found.output_tokens))


def test_more_calls_at_once_take_less_time(tmp_path: Path) -> None:
    slow, fast = (estimated(tmp_path, model_concurrency=n, facts_tokens_per_call=100).seconds for n in (1, 64))
    assert slow > fast + 30


@pytest.mark.parametrize(
    ("export", "changes", "code"),
    [
        (None, {}, "export_not_found"),
        (b"%PDF-1.7", {}, "export_unreadable"),
        ([], {}, "export_empty"),
        (CONVERSATIONS, {"max_conversations": 3}, "export_too_large"),
    ],
)
def test_an_export_that_no_run_can_read_is_told_by_the_code_that_its_run_would_end_with(
    tmp_path: Path, export: Any, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(CommandError, match=code):
        estimated(tmp_path, export, **changes)


@pytest.mark.parametrize("path", ["exports", "exports/../e.json", "/exports/e.json", "exports//e.json", "exports\\e.json", ""])
def test_what_is_no_path_is_wrong_usage(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigurationError, match="bucket/key"):
        estimated(tmp_path, path=path)


def test_without_a_store_it_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="EXPORT_STORE_URL"):
        estimated(tmp_path, EXPORT_STORE_URL=None)
