"""Runs that an operator ends or tries again: one, several, or all that fit; asked first, and told what was passed over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import typer

from consumer.commands.database import opened
from consumer.commands.output import at_terminal, confirm, print_json
from consumer.errors import CommandError, ConfigurationError
from consumer.postgres.cancelling import cancel_run
from consumer.postgres.database import Database
from consumer.postgres.overview import EVERY_RUN, Overview, RunFilter
from consumer.postgres.retrying import NotRetried, retry_run
from consumer.settings import Settings

_AT_ONCE = 4
_DETAIL = "cancelled by an operator"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The runs that were named, or all that fit `which`."""

    run_ids: Sequence[UUID]
    which: RunFilter
    all_that_fit: bool
    limit: int | None
    yes: bool

    def require_sense(self) -> None:
        """Either names or `--all`, filters with `--all` alone, and a way to ask.

        Raises:
            ConfigurationError: naming the option.
        """
        if self.all_that_fit and self.run_ids:
            raise ConfigurationError("--all: expected without RUN_IDs, or RUN_IDs without it")
        if not (self.all_that_fit or self.run_ids):
            raise ConfigurationError("RUN_ID: expected one or several, or --all with what the runs have to fit")
        if not self.all_that_fit and (self.which != EVERY_RUN or self.limit is not None):
            raise ConfigurationError("--all: expected with --status, --user-id and the other options that choose runs")
        if self.all_that_fit and not (self.yes or at_terminal()):
            raise ConfigurationError("--yes: expected with --all, since there is no terminal to ask at")

    async def found(self, database: Database, workable: Collection[str]) -> list[UUID]:
        """The runs, each once. Without a status that was asked for, `--all` means those that something can be done with."""
        if not self.all_that_fit:
            return list(dict.fromkeys(self.run_ids))
        which = self.which if self.which.statuses else replace(self.which, statuses=tuple(workable))
        return await Overview(database).run_ids(which, self.limit)

    def ask(self, what: str, count: int) -> None:
        """Ask at the terminal, with the count; a single run that was named is no question."""
        if count > (not self.all_that_fit) and not self.yes and at_terminal():
            confirm(f"{what} {count:,} run{'s' * (count != 1)}?")


@dataclass(slots=True)
class Report:
    """What was done with each run, and why which were passed over."""

    done: list[dict[str, Any]] = field(default_factory=list)
    passed_over: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, verb: str, *, named: bool, as_json: bool) -> None:
        """Say it; the reasons with their counts, and for runs that were named each.

        Raises:
            CommandError: when one that was named could not be done.
        """
        count = len(self.passed_over)
        if as_json:
            print_json({"done": self.done, "passed_over": self.passed_over})
        else:
            typer.echo(f"{len(self.done):,} {verb}, {count:,} passed over")
            if named:
                lines = [f"{each['run_id']}: {each['reason']}" for each in self.passed_over]
            else:
                lines = [
                    f"{number:,}: {why}" for why, number in Counter(each["reason"] for each in self.passed_over).most_common()
                ]
            for line in lines:
                typer.echo(f"  {line}")
        if named and count:
            raise CommandError(f"{count:,} of {count + len(self.done):,} runs were not {verb}")


async def retry_chosen(settings: Settings, chosen: Chosen) -> Report:
    """Try the chosen runs again."""
    report = Report()
    async with opened(settings) as database:
        run_ids = await chosen.found(database, ("failed", "pending"))
        chosen.ask("Retry", len(run_ids))

        async def retry(run_id: UUID) -> None:
            try:
                retried = await retry_run(database, run_id, of_many=chosen.all_that_fit)
            except NotRetried as error:
                report.passed_over.append({"run_id": run_id, "reason": error.reason})
            else:
                report.done.append({"run_id": run_id, "again": retried.run_id, "new": retried.new})

        await _each(run_ids, retry)
    return report


async def cancel_chosen(settings: Settings, chosen: Chosen) -> Report:
    """End the chosen runs as `v2-failed: cancelled`.

    Raises:
        CommandError: when it is a single one, by name, that has ended or isn't there.
    """
    report = Report()
    async with opened(settings) as database:
        run_ids = await chosen.found(database, ("pending", "running"))
        chosen.ask("Cancel", len(run_ids))

        async def cancel(run_id: UUID) -> None:
            if (code := await cancel_run(database, run_id, _DETAIL)) is not None:
                report.done.append({"run_id": run_id, "error_code": code.value})
                return
            status = await Overview(database).status_of(run_id)
            report.passed_over.append({"run_id": run_id, "reason": "no such run" if status is None else status})

        await _each(run_ids, cancel)
    if len(chosen.run_ids) == 1 and report.passed_over:
        (passed,) = report.passed_over
        if passed["reason"] == "no such run":
            raise CommandError(f"there is no run {passed['run_id']}; 'full-pass runs list' shows those that there are")
        raise CommandError(f"run {passed['run_id']} is {passed['reason']}; only a waiting or a running run can be cancelled")
    return report


async def _each(run_ids: Sequence[UUID], do: Callable[[UUID], Awaitable[None]]) -> None:
    """A few at a time. An interruption leaves the rest as they were."""
    waiting = iter(run_ids)

    async def work_off() -> None:
        for run_id in waiting:
            await do(run_id)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(run_ids))):
                group.create_task(work_off())
    except ExceptionGroup as group_of:
        raise group_of.exceptions[0] from group_of.exceptions[0].__cause__
