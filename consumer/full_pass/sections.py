"""The sections stage (specification 6, last point, and 7): five sections from the richest conversations and MEMORY."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consumer.claude.gate import RunClaude
from consumer.claude.requests import Answer, Request
from consumer.errors import FinalError
from consumer.full_pass.context import fits
from consumer.full_pass.richest import Block, Formatted
from consumer.full_pass.sections_answer import SectionValues, parse_sections, sections_schema
from consumer.full_pass.sections_prompt import ERRORS_HEADING, MEMORY_HEADING, SECTIONS_SYSTEM
from consumer.full_pass.verdicts import Verdict, verdict_of_stop
from consumer.logs import get_log
from schemas.events import ErrorCode

SECTIONS_MAX_TOKENS = 8_192
ATTEMPTS = 2
_ERRORS_TOLD_MAX = 20
_log = get_log("full_pass")


@dataclass(frozen=True, slots=True)
class Sections:
    """The five sections, valid and in the order of the schema, and how many conversations they were made from."""

    sections: SectionValues
    conversations_sampled: int


async def regenerate_sections(block: Block, memory: str, claude: RunClaude) -> Sections:
    """Ask for the five sections; an answer that breaks a rule is asked for once more with what was wrong.

    Raises:
        FinalError: `model_output_invalid` or `model_refused`, after the second answer that is unusable.
        Outage: as `RunClaude.ask` does.
    """
    block = await to_fit(block, memory, claude)
    errors: Sequence[str] = ()
    verdict = None
    for attempt in range(1, ATTEMPTS + 1):
        answer = await claude.ask(sections_request(block, memory, errors))
        verdict, sections, errors = judge_sections(answer)
        if verdict is None:
            return Sections(sections, block.count)
        await claude.judge(answer, verdict)
        _log.warning("sections_unusable", attempt=attempt, verdict=verdict, errors=len(errors))
    code = ErrorCode.MODEL_REFUSED if verdict is Verdict.REFUSED else ErrorCode.MODEL_OUTPUT_INVALID
    raise FinalError(code, f"no valid sections in {ATTEMPTS} answers of {claude.model}: {'; '.join(errors)}")


def sections_request(block: Block, memory: str, errors: Sequence[str] = ()) -> Request:
    """The request for all five sections, with what was wrong with the previous answer if there was one."""
    user = f"{block.text}\n\n{MEMORY_HEADING}\n{memory}"
    if errors:
        user += f"\n\n{ERRORS_HEADING}\n" + "\n".join(f"- {error}" for error in errors)
    return Request("sections", SECTIONS_SYSTEM, user, SECTIONS_MAX_TOKENS, sections_schema())


def judge_sections(answer: Answer) -> tuple[Verdict | None, SectionValues, Sequence[str]]:
    """The sections; or a verdict, and what is wrong in words that are safe to publish."""
    match verdict_of_stop(answer):
        case Verdict.TRUNCATED:
            return Verdict.TRUNCATED, {}, [f"it was cut off at {SECTIONS_MAX_TOKENS} tokens; write shorter fields"]
        case Verdict.REFUSED:
            return Verdict.REFUSED, {}, ["it was a refusal; leave out what you can't write, and fill every field"]
        case Verdict.INVALID:
            return Verdict.INVALID, {}, ["it did not come to its end"]
    sections, errors = parse_sections(answer.text)
    return (Verdict.INVALID if errors else None), sections, errors[:_ERRORS_TOLD_MAX]


async def to_fit(block: Block, memory: str, claude: RunClaude) -> Block:
    """As much of the block as the model's context takes beside MEMORY and the answer, by the API's own count.

    Conversations are dropped from the end, and the only one left is shortened to its first messages. How much to keep is
    found by halving, because a count is a call.
    """
    if await fits(sections_request(block, memory), claude):
        return block
    fewest, most = 0, whole_size(block)
    while most - fewest > 1:
        middle = (fewest + most) // 2
        if await fits(sections_request(up_to(block, middle), memory), claude):
            fewest = middle
        else:
            most = middle
    return up_to(block, fewest)


def whole_size(block: Block) -> int:
    """The steps from nothing to the whole block: each message of its first conversation, then each further conversation."""
    return len(block.conversations[0].lines) - 1 + len(block.conversations) - 1 if block.conversations else 0


def up_to(block: Block, size: int) -> Block:
    """The first steps of the block."""
    if size <= 0 or not block.conversations:
        return Block(())
    first = block.conversations[0]
    messages = len(first.lines) - 1
    if size < messages:
        return Block((Formatted(first.lines[: 1 + size]),))
    return Block(block.conversations[: 1 + size - messages])
