"""The whole pass on one page. Start here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from consumer.claude.gate import Claude
from consumer.exports.limits import ExportLimits
from consumer.exports.store import ExportStore
from consumer.full_pass.estimate import estimate_rest
from consumer.full_pass.facts import extract_facts
from consumer.full_pass.memory import write_memory
from consumer.full_pass.prompt_version import PROMPT_VERSION
from consumer.full_pass.reading import read_export
from consumer.full_pass.reduction import reduce_facts
from consumer.full_pass.sections import regenerate_sections
from consumer.full_pass.soulprint import soulprint_text
from consumer.full_pass.spool import Spool
from consumer.health import Health
from consumer.logs import get_log
from consumer.metrics import Metrics
from consumer.postgres.chunks import Chunks
from consumer.postgres.profiles import Profiles
from consumer.postgres.runs import Claim, Ledger
from consumer.settings import Settings
from consumer.traces import Traces

_log = get_log("full_pass")


def limits_of(settings: Settings) -> ExportLimits:
    """The limits that the settings put on an export."""
    return ExportLimits(
        max_bytes=settings.max_export_bytes,
        max_uncompressed_bytes=settings.max_export_uncompressed_bytes,
        max_compression_ratio=settings.max_compression_ratio,
        max_conversations=settings.max_conversations,
    )


@dataclass(frozen=True)
class Parts:
    """What a run works with: one of each per worker."""

    ledger: Ledger
    profiles: Profiles
    chunks: Chunks
    exports: ExportStore
    claude: Claude
    metrics: Metrics
    traces: Traces
    health: Health
    limits: ExportLimits
    facts_tokens_per_call: int
    coverage_floor: float
    lease_seconds: float

    @asynccontextmanager
    async def stage(self, run: Claim, name: str) -> AsyncIterator[None]:
        """Note in ledger, logs and metrics that the run is in this stage.

        Raises:
            LostLease: before the stage begins, when another worker has the run.
        """
        await self.ledger.enter_stage(run, name, self.lease_seconds, model=self.claude.api.model, prompt_version=PROMPT_VERSION)
        timed = self.metrics.stage_seconds.labels(name).time()
        with structlog.contextvars.bound_contextvars(stage=name), timed, self.traces.span(name):
            _log.info("stage_started")
            yield


async def traced_full_pass(run: Claim, parts: Parts) -> None:
    """`full_pass` as one span in the trace of the run's completion event."""
    with parts.traces.run(run.traceparent, run_id=str(run.run_id), generation=run.generation, attempt=run.attempt):
        await full_pass(run, parts)


async def full_pass(run: Claim, parts: Parts) -> None:
    """Carry one claimed run to `v2-completed`; every other end is an exception that the executor turns into one.

    Every save goes through the door (`postgres/saving.py`), which raises LostLease or Superseded before anything is written.
    After a crash a run takes the same way again: answers are looked up instead of bought, and a MEMORY that this run has saved
    is read, not written.
    """
    replay = run.generation if run.is_replay else None
    claude = parts.claude.for_run(run.run_id, run.user_id, run.bought, replay=replay)  # its user's recorded answers, its budget
    memory = await parts.profiles.begin(run)  # this run's saved MEMORY, or None

    with Spool() as spool:
        async with parts.stage(run, "reading"):  # the only read: chunks to the spool, the 200 richest kept
            export = await read_export(run.storage_path, run.completed_at, parts.exports, spool, parts.limits, parts.metrics)
            parts.health.well("exports")
            if memory is None:
                await parts.chunks.replace(run, spool.batches())
            pages = parts.chunks.oldest_first(run) if memory is None else None
            rest = await estimate_rest(pages, run.completed_at, export, claude, parts.facts_tokens_per_call, memory=memory)
            claude.require_budget(rest.cost_usd)  # nothing is bought by a run that can't be paid for

    if memory is None:
        async with parts.stage(run, "facts"):
            oldest_first = parts.chunks.oldest_first(run)
            extraction = await extract_facts(oldest_first, claude, parts.facts_tokens_per_call, undated_at=run.completed_at)
            await parts.ledger.note_coverage(run, extraction.coverage)
            extraction.require_coverage(parts.coverage_floor)
            facts = await reduce_facts(extraction.facts, claude)
        async with parts.stage(run, "memory"):
            memory = await write_memory(facts, claude)
            await parts.profiles.save_memory(run, memory, extraction.fact_count, extraction.coverage)
            # memory-saved is on its way: nothing below can undo it

    async with parts.stage(run, "sections"):
        regenerated = await regenerate_sections(export.block(), memory, claude)
        await parts.profiles.save_sections(
            run,
            regenerated.sections,
            soulprint_text(regenerated.sections, memory),
            conversations_sampled=regenerated.conversations_sampled,
            model=claude.model,
        )  # v2-completed, the run's end
