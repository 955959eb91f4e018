"""The lives in which a worker is killed: what is published, how the model answers, and how it all has to end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.exports import V1_SECTIONS, a_small_export
from tests.acceptance.reference import LISTS, MEMORY_HEADINGS, SECTION_FIELDS
from tests.acceptance.world import World
from tests.chaos.killer import Moment, Point

FIRST, AGAIN = "ember", "quartz"
"""Words of the model's answer with sections to a request that is asked for the first time, and to one that is asked once more."""


@dataclass(frozen=True, eq=False)
class Story:
    """A kind of run. `steps`: each step between two durable effects, and how often it comes at least.

    `events`: what a reader sees of it in the end, in the order in which it happened.
    """

    name: str
    steps: dict[str, int]
    events: tuple[str, ...]
    with_export: bool
    settings: dict[str, str] = field(default_factory=dict)

    def points(self) -> list[Point]:
        """Every moment of every step."""
        return [
            Point(step, moment, nth)
            for step, times in self.steps.items()
            for nth in range(1, times + 1)
            for moment in (Moment.BEFORE, Moment.AFTER)
        ]


_BATCH = dict.fromkeys(
    ("relay: AddPartitionsToTxn", "relay: Produce", "relay: AddOffsetsToTxn", "relay: TxnOffsetCommit", "relay: EndTxn", "mark"),
    2,
)

COMPLETED = Story(
    "completed",
    {
        "poll": 1, "insert": 1, "dead letter": 1, "offset commit": 1, "claim": 1, "begin": 1,
        "stage: reading": 1, "chunks": 1,
        "stage: facts": 1, "answer: facts": 3, "coverage": 1,
        "stage: memory": 1, "answer: memory": 1, "memory": 1,
        "stage: sections": 1, "answer: sections": 2, "verdict": 1, "sections": 1,
        "renewal": 1, "relay: InitProducerId": 1, **_BATCH,
    },
    ("memory-saved", "v2-completed"),
    with_export=True,
    settings={"FULL_PASS_FACTS_TOKENS_PER_CALL": "1"},  # a request for each of the three conversations
)  # fmt: skip

FAILED = Story(
    "failed",
    {"hand back": 1, "failed end": 1},
    ("v2-failed",),
    with_export=False,
    settings={"FULL_PASS_NOT_FOUND_GRACE_SECONDS": "1"},
)

EVERY_POINT = [(story, point) for story in (COMPLETED, FAILED) for point in story.points()]

# Each with another mechanism behind it, which the test fails without; `make chaos` takes all points.
SOME_POINTS = [
    (COMPLETED, Point("insert", Moment.BEFORE)),
    (COMPLETED, Point("insert", Moment.AFTER)),
    (COMPLETED, Point("chunks", Moment.AFTER)),
    (COMPLETED, Point("answer: facts", Moment.AFTER, 2)),
    (COMPLETED, Point("memory", Moment.AFTER)),
    (COMPLETED, Point("sections", Moment.BEFORE)),
    (COMPLETED, Point("sections", Moment.AFTER)),
    (COMPLETED, Point("relay: EndTxn", Moment.BEFORE)),
    (COMPLETED, Point("mark", Moment.BEFORE)),
    (FAILED, Point("failed end", Moment.AFTER)),
]


def let_the_model_answer(world: World, word: str) -> None:
    """The first answer with sections is no JSON; the next ones say whether their request was asked for the first time."""
    sections = {"kind": "sections", "contains": word}
    memory = {"kind": "memory", "contains": word}
    world.script(
        {"match": sections, "times": 1, "fault": {"kind": "invalid_json"}},
        {"match": sections, "times": 1, "fault": {"kind": "text", "text": sections_saying(FIRST)}},
        {"match": sections, "times": None, "fault": {"kind": "text", "text": sections_saying(AGAIN)}},
        {"match": memory, "times": 1, "fault": {"kind": "text", "text": memory_saying("moss")}},
        {"match": memory, "times": None, "fault": {"kind": "text", "text": memory_saying("slate")}},
    )


def sections_saying(word: str) -> str:
    """An answer of the right shape with the word in each field."""
    values: dict[str, dict[str, Any]] = {
        section: {name: [f"{word} {number}" for number in range(3)] if name in LISTS else f"{word} {name}" for name in fields}
        for section, (_, fields) in SECTION_FIELDS.items()
    }
    return json.dumps(values)


def memory_saying(word: str) -> str:
    """A MEMORY with the word in each line."""
    return "".join(f"{heading}\n- {word} is what it says.\n\n" for heading in MEMORY_HEADINGS)


def export_of(word: str) -> list[dict[str, Any]]:
    """The export of a story's user."""
    return a_small_export(word)


def says(text: str | None) -> str:
    """Which answers with sections a column's text is made of."""
    if text is None or text in V1_SECTIONS.values():
        return "as it was"
    found = [word for word in (FIRST, AGAIN) if word in text]
    return " and ".join(found) or "neither"
