"""The work of `full-pass replay`: select, fill, follow. What has to survive this process stands in `full_pass_replays`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from consumer.commands.option_values import require_order
from consumer.commands.output import say, to_json
from consumer.commands.replay_figures import Figures, figures_of
from consumer.commands.replay_screen import filling_bar, following_bar, selecting_bar
from consumer.errors import ConfigurationError
from consumer.kafka.replaying import InputTopic
from consumer.kafka.topic_range import TopicRange, range_of
from consumer.postgres.criteria import Criteria, criteria_of
from consumer.postgres.database import Database, DatabaseUnavailable
from consumer.postgres.pause import Pause
from consumer.postgres.replays import Replay, Replays, fill
from consumer.postgres.selection import Selection, selecting
from consumer.settings import Settings
from schemas.events import to_utc_text

_LOOK_AGAIN_SECONDS = 0.5


@dataclass(slots=True)
class Progress:
    """How far a replay has come, for what is said when it is interrupted."""

    generation: int | None = None
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Frozen:
    """Where a selection's ends lie, so that it can be made again: kept with the replay."""

    source: str
    source_reason: str
    as_of: datetime | None = None
    range: TopicRange | None = None

    def document(self, as_of: datetime) -> dict[str, Any]:
        """As JSON, with the moment at which the selection was made."""
        return {
            "source_reason": self.source_reason,
            "as_of": to_utc_text(as_of),
            "range": None if self.range is None else self.range.document(),
        }


def frozen_of(replay: Replay) -> Frozen:
    """What `Frozen.document` made, read back."""
    ends, as_of = replay.selection["range"], datetime.fromisoformat(replay.selection["as_of"])
    return Frozen(replay.source, replay.selection["source_reason"], as_of, None if ends is None else range_of(ends))


@dataclass(slots=True)
class Taken:
    """A selection that was made: where from, and what there was beside the events."""

    selection: Selection
    frozen: Frozen
    not_yet_taken: int = 0
    invalid: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """What is told about it, and kept with the replay."""
        return {
            "source": self.frozen.source,
            "source_reason": self.frozen.source_reason,
            "not_yet_taken": self.not_yet_taken,
            "invalid": self.invalid,
        }


async def where_from(settings: Settings, criteria: Criteria) -> Frozen:
    """Topic or ledger, and why; the topic with the offsets that are to be read.

    Raises:
        ConfigurationError: when offsets of the ledger are asked for, or of a partition that there isn't.
        CommandError, KafkaTrouble: when the topic can't be read from there.
    """
    if criteria.source == "ledger":
        return Frozen("ledger", "as asked")
    offsets = bool(criteria.from_offsets or criteria.to_offsets)
    if criteria.source is None and not offsets and criteria.since is None and criteria.until is None:
        return Frozen("ledger", "no range of time or offsets was given")
    async with InputTopic.connect(settings) as topic:
        extent = await topic.extent()
        missing = extent.why_not_back_to(criteria.since)
        if criteria.source is None and not offsets and missing is not None:
            return Frozen("ledger", missing)
        reason = "as asked" if criteria.source or offsets else "the topic reaches back far enough"
        if criteria.source and missing is not None and not offsets:
            reason = f"as asked, though {missing}"
        return Frozen("topic", reason, range=await topic.range_for(criteria, extent))


@asynccontextmanager
async def taking(
    settings: Settings, database: Database, criteria: Criteria, frozen: Frozen, generation: int | None
) -> AsyncIterator[Taken]:
    """Make the selection, for the length of the block.

    Raises:
        KafkaTrouble, CommandError: when the topic can't be read.
        DatabaseUnavailable: when PostgreSQL is away.
    """
    async with selecting(database, criteria, as_of=frozen.as_of, generation=generation) as selection:
        taken = Taken(selection, frozen)
        if frozen.range is None:
            await selection.take_from_ledger()
        else:
            await _take_from_topic(settings, criteria, frozen.range, taken)
        await selection.narrow()
        yield taken


async def _take_from_topic(settings: Settings, criteria: Criteria, wanted: TopicRange, taken: Taken) -> None:
    with selecting_bar(wanted.records) as read:
        async with InputTopic.connect(settings) as topic:
            async for events in topic.events(wanted, criteria):
                taken.invalid += events.invalid + await taken.selection.take(events.runs)
                taken.not_yet_taken += events.not_yet_taken
                read(events.records)


async def replay_of(
    settings: Settings,
    database: Database,
    criteria: Criteria,
    max_cost_usd: Decimal | None,
    progress: Progress,
    go: Callable[[Figures, Taken], bool],
) -> tuple[Figures, Taken]:
    """Select, ask `go` with the figures whether to go on, and make the runs. An unfinished fill of the same is continued.

    `progress.generation` stays None where nothing was begun.
    """
    replays = Replays(database)
    known = await replays.unfilled(criteria.document())
    if known is not None:
        say(f"replay {known.generation} asks for the same and is not filled yet: what follows is its rest, no second one is made")
    frozen = await where_from(settings, criteria) if known is None else frozen_of(known)
    if known is None and frozen.source == "ledger" and (criteria.since or criteria.until):
        say(f"{frozen.source_reason}: the events are taken from the ledger")
    async with taking(settings, database, criteria, frozen, None if known is None else known.generation) as taken:
        figures = await figures_of(taken.selection, settings, criteria.per_minute)
        if not go(figures, taken) or (known is None and figures.runs == 0):
            return figures, taken
        counts = json.loads(to_json(taken.document() | figures.document()))
        document = frozen.document(taken.selection.as_of) | {"counts": counts}
        generation, new = await replays.begin(frozen.source, criteria.document(), document, max_cost_usd)
        progress.generation = generation
        if not new and max_cost_usd is not None and (known is None or known.max_cost_usd != max_cost_usd):
            await replays.resume(generation, max_cost_usd)
        await _fill(taken, generation, criteria, progress)
    return figures, taken


async def refill(settings: Settings, database: Database, replay: Replay, progress: Progress) -> None:
    """Go on with a fill that was interrupted, by the selection that is kept with the replay."""
    criteria = criteria_of(replay.selection["asked"])
    async with taking(settings, database, criteria, frozen_of(replay), replay.generation) as taken:
        await _fill(taken, replay.generation, criteria, progress)


async def _fill(taken: Taken, generation: int, criteria: Criteria, progress: Progress) -> None:
    with filling_bar(await taken.selection.size()) as told:
        await fill(taken.selection, generation, criteria.per_minute, told)
    progress.filled = True


async def follow(database: Database, generation: int) -> Replay:
    """Show how the replay stands until no run of it is open, its budget is spent and nothing runs, or it is cancelled.

    PostgreSQL may go away and come back meanwhile.
    """
    replays, away, told = Replays(database), False, False
    with following_bar() as show:
        while True:
            try:
                replay = await replays.show(generation)
            except DatabaseUnavailable as error:
                if not away:
                    say(f"{error}; the replay is followed again when it is back")
                away = True
            else:
                away = False
                show(replay)
                if not told and not replay.running and (paused := await Pause(database).state()) is not None:
                    say(f"{paused}: the replay goes on after that")
                    told = True
                if replay.standing in {"completed", "cancelled"} or (replay.state == "budget_spent" and not replay.running):
                    return replay
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def require_sense(criteria: Criteria) -> None:
    """Refuse what can't be meant.

    Raises:
        ConfigurationError: naming the options.
    """
    require_order(criteria.since, criteria.until)
    if criteria.source == "ledger" and (criteria.from_offsets or criteria.to_offsets):
        raise ConfigurationError("--from-offset, --to-offset: the ledger has no offsets; expected --source topic, or none")
    for partition, offset in criteria.to_offsets.items():
        if offset <= criteria.from_offsets.get(partition, -1):
            raise ConfigurationError(f"--to-offset: expected one above --from-offset in partition {partition}")
