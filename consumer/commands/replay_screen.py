"""What a person sees of a replay: its figures before it begins, a bar while it goes on, its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from consumer.commands.replay_figures import Figures
from consumer.postgres.replays import Replay

_WORDS = {
    "recorded": "earlier runs",
    "chunks": "stored chunks",
    "message_count": "message_count",
    "sample": "the average of the others",
    "constant": "nothing: an export of 4,000 messages was assumed",
    "superseded": "no call to be made",
}


def dollars(amount: Decimal | float | None) -> str:
    """To the cent, or to two digits below a dollar."""
    if amount is None:
        return "–"
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.2g}" if amount >= 0.0001 else f"${amount:.6f}"


def readable_figures(figures: Figures, taken: Mapping[str, Any]) -> dict[str, str]:
    """The figures for `print_pairs`."""
    found = {
        "source": f"{taken['source']} ({taken['source_reason']})",
        "users": f"{figures.users:,}",
        "runs": f"{figures.runs:,}" + _of_them(figures.superseded, "end at once, superseded by a newer event that was saved"),
        "passed over": f"{figures.passed_over:,}" + (" (a run of the same key is open)" if figures.passed_over else ""),
    }
    if figures.filled:
        found["made already"] = f"{figures.filled:,}"
    if figures.forgotten:
        found["forgotten users"] = f"{figures.forgotten:,}"
    if taken["source"] == "topic":
        found["not yet taken"] = f"{taken['not_yet_taken']:,}" + (" (intake runs them)" if taken["not_yet_taken"] else "")
        found["invalid records"] = f"{taken['invalid']:,}"
    known = ", ".join(
        f"{100 * share['share']:.0f} % {_WORDS[name]} ({share['runs']:,})" for name, share in figures.shares().items()
    )
    saved = figures.answers_save_usd_at_most
    return found | {
        "model": figures.model + ("" if figures.price_known else " (its price is not known; the dearest known one was taken)"),
        "calls": f"{figures.calls:,}",
        "tokens": f"{figures.input_tokens:,} in, {figures.output_tokens:,} out",
        "cost": dollars(figures.cost_usd) + (f"; recorded answers save up to {dollars(saved)} of it" if saved else ""),
        "time": f"{timedelta(seconds=round(figures.seconds))} with one worker",
        "known from": known or "–",
    }


def _of_them(count: int, what: str) -> str:
    return f" ({count:,} of them {what})" if count else ""


def outcome_line(replay: Replay) -> str:
    """How a replay stands, in a line."""
    waiting = replay.pending if replay.state == "budget_spent" else replay.held
    parts = [f"{replay.completed:,} completed", f"{replay.failed:,} failed"]
    kinds = {"superseded": replay.superseded, "cancelled": replay.cancelled}
    if told := ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count):
        parts[-1] += f" ({told})"
    if replay.open - waiting:
        parts.append(f"{replay.open - waiting:,} open")
    if waiting:
        parts.append(f"{waiting:,} held")
    if replay.passed_over:
        parts.append(f"{replay.passed_over:,} passed over")
    return f"{', '.join(parts)}; {spent_of(replay)}"


def spent_of(replay: Replay) -> str:
    """Its spend, and its limit if it has one."""
    limit = f" of {dollars(replay.max_cost_usd)}" if replay.max_cost_usd is not None else ""
    return f"{dollars(replay.cost_usd)}{limit}"


@contextmanager
def _progress(*columns: Any) -> Iterator[Progress]:
    """A bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar


@contextmanager
def selecting_bar(total: int | None) -> Iterator[Callable[[int], None]]:
    """While events are read; yields what to tell how many more were."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} records read"), TimeElapsedColumn())
    with _progress(*columns) as bar:
        task = bar.add_task("", total=total)
        yield lambda more: bar.advance(task, more)


@contextmanager
def filling_bar(keys: int) -> Iterator[Callable[[int, int], None]]:
    """While runs are made; yields what to tell the keys looked at and the runs made so far."""
    columns = (TextColumn("filling"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with _progress(*columns) as bar:
        task = bar.add_task("", total=keys)
        yield lambda looked_at, made: bar.update(task, completed=looked_at, description=f"{made:,} runs made")


@contextmanager
def cancelling_bar(runs: int) -> Iterator[Callable[[int], None]]:
    """While open runs are ended; yields what to tell how many more were."""
    with _progress(TextColumn("cancelling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=runs)
        yield lambda more: bar.advance(task, more)


@contextmanager
def following_bar() -> Iterator[Callable[[Replay], None]]:
    """While runs go on; yields what to tell how the replay stands."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with _progress(*columns) as bar:
        task = bar.add_task("", total=None)

        def show(replay: Replay) -> None:
            done = replay.completed + replay.failed
            bar.update(task, total=replay.runs, completed=done, description=outcome_line(replay))

        yield show
