"""What the demo shows: steps, the run as it goes on, and what came out. On stderr when the result is asked for as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.panel import Panel
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from consumer.commands.estimating import ExportEstimate
from consumer.errors import CommandError
from schemas.events import SECTION_NAMES, QuickPassCompleted

STAGES = {
    "starting": "waiting to be claimed",
    "reading": "reading the export: chunks, and the 200 richest conversations",
    "facts": "distilling facts, pack by pack",
    "memory": "writing MEMORY and saving it early",
    "sections": "regenerating the five sections",
}
_ROW = (
    "run_id",
    "status",
    "stage",
    "attempt",
    "failures",
    "coverage",
    "model_calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
)


class Screen:
    """The demo's terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=quiet, highlight=False)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A step that begins, and, if it goes well, the time that it took."""
        began = time.monotonic()
        self._console.print(f"[bold cyan]▸[/] {what}…")
        yield
        self._console.print(f"  [green]✓[/] {time.monotonic() - began:.1f} s", style="dim")

    def confirm(self, estimate: ExportEstimate, model: str) -> None:
        """Ask before money is spent.

        Raises:
            CommandError: when the answer is no.
        """
        price = f"about ${estimate.cost_usd:.2f}" + ("" if estimate.price_known else " (the model's price is not known)")
        self._console.print(
            f"{estimate.conversations} conversations, {estimate.chunks} chunks: {estimate.calls} calls of {model}, "
            f"{estimate.input_tokens:,} tokens in and {estimate.output_tokens:,} out, {price}."
        )
        if not typer.confirm("Spend that?", default=False, err=True):
            raise CommandError("nothing was spent")

    def left_out(self, what: str) -> None:
        """Something that can't be shown here, and why."""
        self._console.print(f"[bold cyan]▸[/] left out: {what}")

    def published(self, event: QuickPassCompleted, place: tuple[str, int, int]) -> None:
        """The completion event is on its topic."""
        topic, partition, offset = place
        self._console.print(f"[bold cyan]▸[/] published to {topic}, partition {partition}, offset {offset}:")
        self._json(event.model_dump(mode="json", exclude_none=True))

    @contextmanager
    def following(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Show a run while it goes on: give each look at it to what this yields."""
        shown = _Followed()
        if not self._console.is_terminal:
            yield lambda run: self._line(shown, run)
            return
        with Live(console=self._console, refresh_per_second=8, transient=True) as live:
            yield lambda run: live.update(shown.look(run))
        self._console.print(shown.final())

    def show(self, document: Mapping[str, Any]) -> None:
        """MEMORY, the five sections, the events and the ledger's row."""
        run, profile = document["run"], document["profile"]
        if profile.get("memory_md"):
            self._console.print(Rule("MEMORY", style="cyan"), Markdown(profile["memory_md"]))
        for name in SECTION_NAMES:
            if profile.get(f"{name}_md"):
                self._console.print(Rule(name, style="cyan"), _section(json.loads(profile[f"{name}_md"])))
        for event in document["events"]:
            self._console.print(Rule(f"{event['topic']}, partition {event['partition']}, offset {event['offset']}", style="cyan"))
            for name, value in event["headers"].items():
                self._console.print(Text(f"{name}: {value}", style="dim"))
            self._json(event["data"])
        self._console.print(Rule("the run in the ledger", style="cyan"), _pairs({name: run[name] for name in _ROW}))
        outcome = "v2-completed" if run["status"] == "completed" else f"v2-failed: {run['error_code']}: {run['error_detail']}"
        self._console.print(
            Panel(f"[bold]{outcome}[/] — the profile is at version {profile.get('profile_version')}", expand=False)
        )
        if prompts := document.get("prompts"):
            self._prompts(prompts)

    def _prompts(self, prompts: Mapping[str, Any]) -> None:
        """The chat service's view: the cached prompt, the event, the fresh prompt."""
        before, fresh, again = prompts["cached"], prompts["fresh"], prompts["cached_again"]
        self._console.print(Rule("the chat service's prompt, in Redis (examples/prompt_cache.py)", style="cyan"))
        steps = Table.grid(padding=(0, 2))
        steps.add_row("before the event", _prompt(before))
        for line in prompts["dropped"]:
            steps.add_row("the event", Text(line, style="yellow"))
        steps.add_row("the next chat", _prompt(fresh))
        steps.add_row("the one after it", _prompt(again))
        self._console.print(steps)

    def _line(self, shown: _Followed, run: Mapping[str, Any]) -> None:
        """Without a terminal, a line whenever the stage changes."""
        if shown.note(run):
            self._console.print(f"  {run['stage']}: {STAGES.get(run['stage'], '')} ({_bought(run)})")

    def _json(self, document: Any) -> None:
        self._console.print_json(json.dumps(document, default=str), indent=2)


class _Followed:
    """The stages that a run was seen in, with the time spent in each."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._run: Mapping[str, Any] = {}

    def note(self, run: Mapping[str, Any]) -> bool:
        """Take a look; whether its stage is new."""
        new = run["stage"] not in self._began
        self._began.setdefault(run["stage"], time.monotonic())
        self._run = run
        return new

    def look(self, run: Mapping[str, Any]) -> RenderableType:
        """The stages so far, the last one under way."""
        self.note(run)
        return self._drawn(ended=False)

    def final(self) -> RenderableType:
        """All stages, ended."""
        return self._drawn(ended=True)

    def _drawn(self, *, ended: bool) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        names = list(self._began)
        ends = [*(self._began[name] for name in names[1:]), time.monotonic()]
        for name, end in zip(names, ends, strict=True):
            under_way = name == names[-1] and not ended
            mark: RenderableType = Spinner("dots") if under_way else Text("✓", style="green")
            table.add_row(mark, Text(name, style="bold"), STAGES.get(name, ""), f"{end - self._began[name]:.1f} s")
        return Group(table, Text(f"  {_bought(self._run)}" if self._run else "", style="dim"))


def _bought(run: Mapping[str, Any]) -> str:
    answers = ", ".join(f"{call['answers']} {call['kind']}" for call in run["calls"])
    cost = "unknown" if run["cost_usd"] is None else f"${float(run['cost_usd']):.4f}"
    tokens = f"{run['input_tokens']:,} tokens in, {run['output_tokens']:,} out"
    return f"{run['model_calls']} model calls{f' ({answers})' if answers else ''}, {tokens}, {cost}"


def _prompt(prompt: Mapping[str, Any]) -> Text:
    source = "from the cache" if prompt["cached"] else "built from the row"
    text = prompt["text"]
    words = f"version {prompt['version']}, {source}: {len(text):,} characters"
    headings = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    return Text(words + (f" ({', '.join(headings)})" if headings else ""))


def _section(section: Mapping[str, Any]) -> Table:
    return _pairs({name: ", ".join(value) if isinstance(value, list) else value for name, value in section.items()})


def _pairs(pairs: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    for name, value in pairs.items():
        table.add_row(name, Text(str(value)))
    return table
