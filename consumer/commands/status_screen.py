"""`full-pass status` as people see it: one screen, at most 24 lines of 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from consumer.commands.output import readable
from schemas.events import to_utc_text

MOST_CODES = 5
MOST_REPLAYS = 3
_REASON_CHARS = 80


def screen_of(found: Mapping[str, Any], now: datetime) -> dict[str, str]:
    """What `status --json` says, for `print_pairs`. Without a ledger it is the dependencies alone."""
    dependencies = {name: str(well) for name, well in found["dependencies"].items()}
    return {**_ledger(found, now), **dependencies} if "runs" in found else dependencies


def _ledger(found: Mapping[str, Any], now: datetime) -> dict[str, str]:
    return {
        "executors": _paused(found["paused"]),
        "intake": _intake(found["intake"]),
        "backlog": _backlog(found["backlog"]),
        "oldest due": _since(found["oldest_due_at"], now) or "nothing is due",
        "runs in all": ", ".join(f"{count:,} {status}" for status, count in found["runs"].items()),
        "failures in 24 hours": _failures(found["failures_last_24_hours"]),
        "failures in all": _failures(found["failures"]),
        "coverage in 24 hours": readable(found["coverage_last_24_hours"]),
        "spend in 24 hours": _spend(found),
        "relay": _relay(found, now),
        **_replays(found["replays"]),
    }


def _paused(paused: Mapping[str, Any] | None) -> str:
    if paused is None:
        return "not paused"
    why = f" ({paused['reason'][:_REASON_CHARS]})" if paused["reason"] else ""
    return f"paused since {to_utc_text(paused['paused_at'])[:19]}Z{why}; 'full-pass resume' goes on"


def _intake(intake: Mapping[str, int] | None) -> str:
    if intake is None:
        return "Kafka does not say"
    removed = f"; {intake['removed_unread']:,} more were removed unread" if intake["removed_unread"] else ""
    return f"{intake['waiting']:,} records of the topic wait{removed}"


def _backlog(backlog: Mapping[str, int]) -> str:
    names = {
        "due": "due",
        "running": "running",
        "waiting_for_outage": "waiting for an outage",
        "due_later": "due later",
        "held": "held",
    }
    return ", ".join(f"{backlog[name]:,} {said}" for name, said in names.items())


def _since(moment: datetime | None, now: datetime) -> str | None:
    if moment is None:
        return None
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}, {_length((now - moment).total_seconds())} ago"


def _length(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _failures(failures: Mapping[str, int]) -> str:
    if not failures:
        return "none"
    most = sorted(failures.items(), key=lambda each: (-each[1], each[0]))
    rest = sum(count for _, count in most[MOST_CODES:])
    said = [f"{code} {count:,}" for code, count in most[:MOST_CODES]] + ([f"others {rest:,}"] if rest else [])
    return f"{sum(failures.values()):,}: {', '.join(said)}"


def _spend(found: Mapping[str, Any]) -> str:
    limit = found["max_cost_usd_per_day"]
    spent = _dollars(found["spend_last_24_hours_usd"])
    if limit is None:
        return f"{spent}, no limit of a day"
    held = "; the limit holds runs back" if found["held_back_by_day_limit"] else ""
    until = f" until {found['room_again_at']:%Y-%m-%d %H:%M}" if held and found["room_again_at"] else ""
    return f"{spent} of {_dollars(limit)} a day{held}{until}"


def _relay(found: Mapping[str, Any], now: datetime) -> str:
    waiting = found["outbox_unpublished"]
    oldest = _since(found["outbox_oldest_at"], now)
    return f"{waiting:,} events wait" + (f", the oldest since {oldest}" if oldest else "")


def _replays(replays: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not replays:
        return {"replays": "none under way"}
    said = {f"replay {each['generation']}": _replay(each) for each in replays[:MOST_REPLAYS]}
    more = len(replays) - MOST_REPLAYS
    return said | ({"replays": f"{more:,} more; see 'full-pass replay list'"} if more > 0 else {})


def _replay(replay: Mapping[str, Any]) -> str:
    limit = "" if replay["max_cost_usd"] is None else f" of {_dollars(replay['max_cost_usd'])}"
    failed = f", {replay['failed']:,} of them failed" if replay["failed"] else ""
    state = str(replay["state"]).replace("_", " ")
    return f"{state}; {replay['ended']:,} of {replay['runs']:,} ended{failed}; {_dollars(replay['cost_usd'])}{limit}"


def _dollars(amount: Decimal | float) -> str:
    return f"${amount:,.4f}" if 0 < amount < 1 else f"${amount:,.2f}"
