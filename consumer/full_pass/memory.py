"""The MEMORY stage (specification 5): one Markdown document from all facts, and never a placeholder."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from consumer.claude.gate import RunClaude
from consumer.claude.requests import Answer, Request
from consumer.errors import FinalError
from consumer.full_pass.categories import Facts, storable
from consumer.full_pass.context import fits
from consumer.full_pass.memory_prompt import HEADINGS, MEMORY_SYSTEM, NO_DATA
from consumer.full_pass.reduction import cut_to, fenced_facts
from consumer.full_pass.sections_prompt import ERRORS_HEADING, MEMORY_HEADING
from consumer.full_pass.verdicts import Verdict, verdict_of_stop
from consumer.logs import get_log
from schemas.events import ErrorCode

MEMORY_MAX_TOKENS = 4_096
ATTEMPTS = 3
LINES_MIN = 3

_HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
_MARKUP = " \t-*+_>`.:"
# A code fence belongs to the chat, not to the document.
_CODE_FENCE = re.compile(r"^(?P<ticks>`{3,}|~{3,})\w*[ \t]*\n(?P<inside>.*\n)(?P=ticks)[ \t]*$", re.DOTALL | re.MULTILINE)
# What the sections' request says in its own name, MEMORY must not seem to say.
_LINES_OF_OURS = frozenset({MEMORY_HEADING, ERRORS_HEADING})
_CUT_TO = 0.75
_log = get_log("full_pass")


@dataclass(frozen=True, slots=True)
class Defect:
    """Why an answer is no MEMORY. `told` goes to the model and into the error's detail, so it never quotes the answer."""

    verdict: Verdict
    told: str


async def write_memory(facts: Facts, claude: RunClaude) -> str:
    """The MEMORY of the facts. Without any, it is the five headings with `No data yet.`, and the model is not asked.

    Raises:
        FinalError: `model_output_invalid` or `model_refused`, after three answers that are none.
        Outage: as `RunClaude.ask` does.
    """
    if not facts:
        return "\n\n".join(f"{heading}\n{NO_DATA}" for heading in HEADINGS) + "\n"
    facts = await _that_fit(facts, claude)
    defects: list[Defect] = []
    while len(defects) < ATTEMPTS:
        answer = await claude.ask(memory_request(facts, defects))
        defect = defect_of(answer, len(facts))
        if defect is None:
            return to_memory(answer.text)
        await claude.judge(answer, defect.verdict)
        defects.append(defect)
        _log.warning("memory_unusable", attempt=len(defects), verdict=defect.verdict)
    last = defects[-1]
    code = ErrorCode.MODEL_REFUSED if last.verdict is Verdict.REFUSED else ErrorCode.MODEL_OUTPUT_INVALID
    raise FinalError(code, f"no MEMORY in {ATTEMPTS} answers of {claude.model}; the last one {last.told}")


async def _that_fit(facts: Facts, claude: RunClaude) -> Facts:
    """The newest facts that fit the model's context: 200,000 tokens were an estimate of 4 characters each, real ones decide."""
    while not await fits(memory_request(facts), claude):
        facts = await asyncio.to_thread(cut_to, facts, int(_CUT_TO * facts.to_tokens()))
    return facts


def memory_request(facts: Facts, defects: Sequence[Defect] = ()) -> Request:
    """The request for MEMORY; after an answer that was none it says which one it is now, and what was wrong."""
    user = fenced_facts(facts)
    if defects:
        attempt = len(defects) + 1
        user += f"\n\nThis is request {attempt} of {ATTEMPTS}. Your previous answer can't be used: it {defects[-1].told}."
    return Request("memory", MEMORY_SYSTEM, user, MEMORY_MAX_TOKENS)


def defect_of(answer: Answer, fact_count: int) -> Defect | None:
    """Why the answer is no MEMORY of that many facts, or None if it is one."""
    match verdict_of_stop(answer):
        case Verdict.TRUNCATED:
            return Defect(Verdict.TRUNCATED, f"was cut off at {MEMORY_MAX_TOKENS} tokens; be much shorter")
        case Verdict.REFUSED:
            return Defect(Verdict.REFUSED, "was a refusal; leave out whatever you can't repeat, and write the rest")
        case Verdict.INVALID:
            return Defect(Verdict.INVALID, "did not come to its end")
    told = []
    memory = to_memory(answer.text)
    missing = missing_headings(memory)
    if missing:
        told.append(f"lacks {', '.join(repr(heading) for heading in missing)}")
    expected = min(LINES_MIN, fact_count)
    lines = len(lines_of_substance(memory))
    if lines < expected:
        told.append(f"has {lines} lines of facts where at least {expected} were expected")
    return Defect(Verdict.INVALID, " and ".join(told)) if told else None


def to_memory(text: str) -> str:
    """The document of an answer, as it is saved: without a code fence around it, and without lines that only requests have.

    Everything else stays as the model wrote it. Headings in another order, or one that is there twice, mislead nobody; a MEMORY
    that can be used is worth more to the user than none.
    """
    fence = _CODE_FENCE.search(text)
    inside = text if fence is None or missing_headings(fence["inside"]) else fence["inside"]
    lines = inside.split("\n")
    return storable("\n".join(line for line in lines if line.strip() not in _LINES_OF_OURS))


def missing_headings(text: str) -> list[str]:
    """Those of the five headings that are no line of the text."""
    lines = {line.rstrip() for line in text.splitlines()}
    return [heading for heading in HEADINGS if heading not in lines]


def lines_of_substance(text: str) -> list[str]:
    """The lines that say something: not blank, no heading, not `No data yet.` in whatever markup, no bare punctuation.

    What stands above the first of the five headings is no fact, but an apology or an announcement.
    """
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if line.rstrip() in HEADINGS), len(lines))
    return [line for line in lines[first:] if _says_something(line)]


def _says_something(line: str) -> bool:
    if _HEADING.match(line) or not any(char.isalnum() for char in line):
        return False
    return line.strip(_MARKUP).casefold() != NO_DATA.strip(_MARKUP).casefold()
