"""The facts stage (specification 4): every chunk is read by the model, and what became of each of them is known."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial

from consumer.claude.gate import RunClaude
from consumer.claude.requests import Answer, Request
from consumer.errors import FinalError, PassingFailure
from consumer.full_pass.categories import FACTS_SCHEMA, Facts, parse_facts
from consumer.full_pass.consolidation import Consolidation
from consumer.full_pass.facts_prompt import FACTS_SYSTEM
from consumer.full_pass.fence import TITLE_MAX_CHARS, code_for, fenced
from consumer.full_pass.in_flight import in_order
from consumer.full_pass.packing import Packer
from consumer.full_pass.verdicts import verdict_of_stop
from consumer.logs import get_log
from consumer.postgres.chunks import Chunk
from schemas.events import ErrorCode

# Twice what a pack holds: facts are shorter than what they come from, JSON included. Unused tokens cost nothing, and
# an answer that needs more is one that repeats itself.
FACTS_MAX_TOKENS = 4_096
# A pack can be twice the wanted size and its estimate a quarter of the truth (a character may be a token): still under 200,000.
TOKENS_PER_CALL_MAX = 20_000
UNKNOWN_DATE = "unknown"

_FENCE_CHARS = 100
_log = get_log("full_pass")


class Outcome(StrEnum):
    """What became of a chunk. The later one stands for a chunk whose pieces ended differently.

    There is none for a call that the API did not answer: that stops the run (`Outage`), and the chunk has no outcome yet.
    """

    NO_FACTS = "no_facts"
    FACTS = "facts"
    INVALID = "invalid"
    REFUSED = "refused"
    TRUNCATED = "truncated"


ANSWERED = frozenset({Outcome.FACTS, Outcome.NO_FACTS})
# Asking the same again would bring the same.
_LASTING = frozenset({Outcome.INVALID, Outcome.REFUSED})
_ORDER = list(Outcome)


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk, or half of one, as a request shows it. Nothing in it depends on the rest of the export."""

    title: str
    date: str
    content: str


Pack = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pack gave: the facts in order, and an outcome for each of its pieces."""

    facts: tuple[Facts, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Extraction:
    """The consolidated facts of an export, and how much of it they come from."""

    facts: Facts
    outcomes: Mapping[Outcome, int]

    @property
    def chunks(self) -> int:
        """All chunks of the export."""
        return sum(self.outcomes.values())

    @property
    def answered(self) -> int:
        """Chunks of which every piece was answered."""
        return sum(self.outcomes.get(outcome, 0) for outcome in ANSWERED)

    @property
    def coverage(self) -> float:
        """Answered chunks ÷ chunks, from 0 to 1."""
        return self.answered / self.chunks if self.chunks else 1.0

    @property
    def fact_count(self) -> int:
        """Facts after consolidation, before reduction."""
        return len(self.facts)

    def require_coverage(self, floor: float) -> None:
        """Go on only if enough was read to speak for the whole.

        Raises:
            FinalError: `coverage_too_low`, and all that is missing was refused or invalid.
            PassingFailure: `coverage_too_low`, and another attempt may read more.
        """
        if self.coverage >= floor:
            return
        missing = {outcome: n for outcome, n in self.outcomes.items() if n and outcome not in ANSWERED}
        counts = ", ".join(f"{n} {outcome}" for outcome, n in missing.items())
        detail = (
            f"{self.answered} of {self.chunks} chunks were answered ({counts}): coverage {self.coverage:.3f}, expected "
            f"{floor:g} or more. Another FULL_PASS_MODEL may answer more; FULL_PASS_COVERAGE_FLOOR accepts less."
        )
        kind = FinalError if missing.keys() <= _LASTING else PassingFailure
        raise kind(ErrorCode.COVERAGE_TOO_LOW, detail)


async def extract_facts(
    pages: AsyncIterable[Sequence[Chunk]], claude: RunClaude, tokens_per_call: int, undated_at: datetime | None = None
) -> Extraction:
    """Read all chunks, oldest first, in packs of about `tokens_per_call` tokens.

    `undated_at` is the `created_at` of conversations that have no time of their own (the event's `completed_at`): their date is
    shown as unknown, and stays so when the export is imported again.

    Raises:
        Outage, FinalError: as `RunClaude.ask` does. An error is never taken for "no facts".
    """
    consolidation = Consolidation()
    outcomes: Counter[Outcome] = Counter()

    def take(reading: Reading) -> None:
        outcomes.update(reading.outcomes)
        for facts in reading.facts:
            consolidation.add(facts)

    packs = packs_of(pages, tokens_per_call, undated_at)
    await in_order(packs, partial(read_pack, claude=claude), take)
    facts = await asyncio.to_thread(consolidation.to_facts)
    extraction = Extraction(facts, {outcome: outcomes[outcome] for outcome in Outcome})
    _log.info("facts_extracted", facts=len(facts), coverage=round(extraction.coverage, 4), chunks=extraction.outcomes)
    return extraction


async def packs_of(
    pages: AsyncIterable[Sequence[Chunk]], tokens_per_call: int, undated_at: datetime | None
) -> AsyncGenerator[Pack, None]:
    """The packs in which the chunks will be asked about."""
    packer = packer_of(tokens_per_call)
    async for page in pages:
        for chunk in page:
            for pack in packer.add(to_piece(chunk, undated_at)):
                yield pack
    for pack in packer.rest():
        yield pack


def packer_of(tokens_per_call: int) -> Packer[Piece]:
    """Packs chunks for one request each; a cut follows from the chunks' own text and date.

    The date tells apart what is said in the same words every day: equal items could not be cut by what stands in them.
    """
    return Packer(min(tokens_per_call, TOKENS_PER_CALL_MAX), _tokens, lambda piece: f"{piece.date}\n{piece.content}")


def _tokens(piece: Piece) -> int:
    return (len(piece.content) + min(len(piece.title), TITLE_MAX_CHARS) + _FENCE_CHARS) // 4


def to_piece(chunk: Chunk, undated_at: datetime | None = None) -> Piece:
    """The chunk as a request shows it."""
    if chunk.created_at == undated_at:
        return Piece(chunk.title, UNKNOWN_DATE, chunk.content)
    return Piece(chunk.title, chunk.created_at.astimezone(UTC).date().isoformat(), chunk.content)


async def read_pack(pack: Pack, claude: RunClaude) -> Reading:
    """Ask for the facts of a pack; what comes back unusable is asked for again in smaller packs, in the end in halves of a chunk.

    Raises:
        Outage, FinalError: as `RunClaude.ask` does.
    """
    reading = await _ask(pack, claude)
    smaller = () if reading.outcomes[0] in ANSWERED else smaller_packs(pack)
    if not smaller:
        return reading
    readings = [await read_pack(part, claude) if len(pack) > 1 else await _ask(part, claude) for part in smaller]
    facts = tuple(facts for reading in readings for facts in reading.facts)
    outcomes = tuple(outcome for reading in readings for outcome in reading.outcomes)
    return Reading(facts, outcomes if len(pack) > 1 else (max(outcomes, key=_ORDER.index),))


async def _ask(pack: Pack, claude: RunClaude) -> Reading:
    answer = await claude.ask(facts_request(pack))
    outcome, facts = judge_facts(answer)
    if facts is None:
        await claude.judge(answer, outcome)
        return Reading((), (outcome,) * len(pack))
    return Reading((facts,), (outcome,) * len(pack))


def judge_facts(answer: Answer) -> tuple[Outcome, Facts | None]:
    """What the answer is good for; facts only where it is usable."""
    verdict = verdict_of_stop(answer)
    if verdict is not None:
        return Outcome(verdict), None
    facts = parse_facts(answer.text)
    if facts is None:
        return Outcome.INVALID, None
    return (Outcome.FACTS if facts else Outcome.NO_FACTS), facts


def facts_request(pack: Pack) -> Request:
    """The request for one pack: each piece fenced on its own, with title and date."""
    code = code_for(text for piece in pack for text in (piece.title, piece.content))
    fences = [fenced("conversation", code, piece.content, date=piece.date, title=piece.title) for piece in pack]
    return Request("facts", FACTS_SYSTEM, "\n\n".join(fences), FACTS_MAX_TOKENS, FACTS_SCHEMA)


def smaller_packs(pack: Pack) -> tuple[Pack, ...]:
    """What to ask for instead of a pack: two smaller ones, or the halves of its only chunk; nothing if it has no halves."""
    if len(pack) > 1:
        middle = len(pack) // 2
        return pack[:middle], pack[middle:]
    piece = pack[0]
    middle = _middle(piece.content)
    halves = (piece.content[:middle], piece.content[middle:])
    if not all(half.strip() for half in halves):
        return ()
    return tuple((Piece(piece.title, piece.date, half),) for half in halves)


def _middle(text: str) -> int:
    """Where to halve a text: after the last newline of its second quarter, or else sentence, or word; or else in the middle."""
    middle = len(text) // 2
    for boundary in ("\n", ". ", "。", " "):
        found = text.rfind(boundary, len(text) // 4, middle)
        if found >= 0:
            return found + len(boundary)
    return middle
