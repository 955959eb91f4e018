"""What an operator may say to `full-pass replay`, and what not."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from consumer.commands.option_values import moment_of
from consumer.commands.replay_options import limit_of, offsets_of, rate_of, users_of
from consumer.commands.replay_screen import dollars
from consumer.commands.replay_work import require_sense
from consumer.errors import ConfigurationError
from consumer.postgres.criteria import Criteria

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)


@pytest.mark.parametrize("given", ["2026-10-01", "2026-10-01T00:00", "2026-10-01T02:00:00+02:00", "2026-10-01T00:00:00Z"])
def test_a_plain_date_is_its_midnight_in_utc_like_any_time_without_a_zone(given: str) -> None:
    assert moment_of("--since", given) == OCTOBER


@pytest.mark.parametrize("given", ["", "yesterday", "1759276800", "2026-13-01", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_time_is_refused_without_being_quoted(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--since: expected ISO 8601, such as 2026-10-01 or 2026-10-01T12:30:00Z$"):
        moment_of("--since", given)


def test_offsets_go_by_partition() -> None:
    assert offsets_of("--from-offset", ["0:15", "12:0"]) == {0: 15, 12: 0}
    assert offsets_of("--from-offset", None) == {}


@pytest.mark.parametrize("given", [["15"], ["0:-1"], ["0:" + "9" * 5_000], ["٣:1"], [":"], ["0:1:2"], ["a:1"], ["0:1", "0:2"]])
def test_what_is_no_offset_is_refused(given: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"^--from-offset: "):
        offsets_of("--from-offset", given)


def test_users_come_from_options_and_a_file_together(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"{UUID(int=2)}\n\n  {str(UUID(int=10)).upper()}  \n{UUID(int=2)}")
    assert users_of([UUID(int=1)], str(tmp_path / "users")) == {UUID(int=1), UUID(int=2), UUID(int=10)}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\n", "there is none"), (b"00\n", "in line 1"), (b"\n\nhunter2", "in line 3"), (b"\xff", "is not text")],
)
def test_a_file_without_users_is_refused_and_a_line_that_is_none_is_named_not_quoted(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "users").write_bytes(content)
    with pytest.raises(ConfigurationError, match=said) as refused:
        users_of(None, str(tmp_path / "users"))
    assert "hunter2" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't read .*nobody: No such file"):
        users_of(None, str(tmp_path / "nobody"))


def test_a_limit_is_exact_and_above_zero() -> None:
    assert limit_of(12.1) == Decimal("12.1")
    for wrong in (0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match=r"^--max-cost-usd: expected a number above 0, at most 1,000,000,000$"):
            limit_of(wrong)


def test_a_rate_is_one_at_which_the_last_run_is_due_in_a_time_that_a_clock_can_show() -> None:
    assert (rate_of(0.01), rate_of(600.0), rate_of(None)) == (0.01, 600.0, None)
    for wrong in (0.0, -1.0, 1e-10, 1e7, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match=r"^--per-minute: expected 0\.01 to 1,000,000$"):
            rate_of(wrong)


@pytest.mark.parametrize(
    ("criteria", "said"),
    [
        (Criteria(since=OCTOBER, until=OCTOBER), "--until: expected a time after --since"),
        (Criteria(source="ledger", from_offsets={0: 1}), "the ledger has no offsets"),
        (Criteria(from_offsets={0: 5}, to_offsets={0: 5}), "expected one above --from-offset in partition 0"),
    ],
)
def test_what_can_not_be_meant_is_refused(criteria: Criteria, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        require_sense(criteria)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("0", "$0.00"), ("1234.5", "$1,234.50"), ("0.0349", "$0.035"), ("0.00000001", "$0.000000"), ("0.00012", "$0.00012")],
)
def test_dollars_are_readable_at_any_size(amount: str, shown: str) -> None:
    assert dollars(Decimal(amount)) == shown
