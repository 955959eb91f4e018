"""`full-pass estimate`: what a run of an export would cost, without a model call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from consumer.claude.models import price_of
from consumer.commands.output import AsJson, print_json, print_pairs
from consumer.commands.replay_figures import DOCUMENTS_SECONDS, FACTS_SECONDS
from consumer.errors import CommandError, ConfigurationError, RunError
from consumer.exports.store import ExportStore
from consumer.full_pass.reading import read_export
from consumer.full_pass.spool import Spool
from consumer.metrics import Metrics
from consumer.postgres.chunks import Chunk
from consumer.settings import Settings, load_settings, required
from schemas.events import StoragePath

# As many as memory may hold at once.
_SORTED_CHUNKS = 5_000


@dataclass(frozen=True, slots=True)
class ExportEstimate:
    """What a first run of an export would take. `cost_usd` is of the dearest model where the price is not known."""

    conversations: int
    messages: int
    chunks: int
    skipped: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    price_known: bool
    model: str
    seconds: float


def estimate_command(
    storage_path: Annotated[str, typer.Argument(metavar="BUCKET/KEY", help="The export in the store at EXPORT_STORE_URL.")],
    as_json: AsJson = False,
) -> None:
    """Say what a first run of an export would cost and how long it would take, without a model call.

    Answers that are recorded for its user make a run cheaper than this; answers that have to be asked for again, dearer.
    """
    found = asyncio.run(estimate_export(load_settings(), storage_path))
    document = {name: value for name, value in asdict(found).items() if name != "price_known"}
    if not found.price_known:
        document["note"] = f"the price of {found.model} is not known; the dearest known one was taken"
    if as_json:
        print_json(document)
    else:
        print_pairs(document)


async def estimate_export(settings: Settings, storage_path: str) -> ExportEstimate:
    """Read the export and count.

    Raises:
        ConfigurationError: when `storage_path` is no bucket/key.
        CommandError: when the export can't be read, with the code that its run would end with.
    """
    from consumer.full_pass.estimate import estimate
    from consumer.full_pass.in_flight import IN_FLIGHT
    from consumer.full_pass.run import limits_of

    try:
        TypeAdapter(StoragePath).validate_python(storage_path)
    except ValidationError:
        raise ConfigurationError("BUCKET/KEY: expected bucket/key, without empty, '.' or '..' segments or backslashes") from None
    store = ExportStore.from_url(required(settings.export_store_url, "EXPORT_STORE_URL"))
    began, now = time.monotonic(), datetime.now(UTC)
    with Spool() as spool:
        try:
            export = await read_export(storage_path, now, store, spool, limits_of(settings), Metrics())
        except RunError as error:
            raise CommandError(str(error)) from None
        found = await estimate(_pages(spool), now, export, settings.model, settings.facts_tokens_per_call)
    waves = -(-found.calls // min(settings.model_concurrency, IN_FLIGHT))
    return ExportEstimate(
        conversations=export.conversations,
        messages=export.messages,
        chunks=export.chunks,
        skipped=export.skipped,
        calls=found.calls,
        input_tokens=found.input_tokens,
        output_tokens=found.output_tokens,
        cost_usd=found.cost_usd,
        price_known=price_of(settings.model) is not None,
        model=settings.model,
        seconds=round(time.monotonic() - began + waves * FACTS_SECONDS + DOCUMENTS_SECONDS, 1),
    )


async def _pages(spool: Spool) -> AsyncIterator[Sequence[Chunk]]:
    """The chunks oldest first, as a run reads them and makes its packs; of more than 5,000, so many at a time."""
    for batch in spool.batches(_SORTED_CHUNKS):
        yield sorted(batch, key=lambda chunk: (chunk.created_at, chunk.conversation_id, chunk.chunk_index, chunk.content))
        await asyncio.sleep(0)
