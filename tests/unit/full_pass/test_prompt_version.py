"""The version of the prompts, and what it stands for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from consumer.claude.requests import Answer, Request
from consumer.full_pass.categories import facts_of
from consumer.full_pass.facts import Piece, facts_request
from consumer.full_pass.memory import defect_of, memory_request
from consumer.full_pass.prompt_version import PROMPT_VERSION
from consumer.full_pass.reduction import Batch, reduction_request
from consumer.full_pass.richest import Block, Formatted
from consumer.full_pass.sections import judge_sections, sections_request

KNOWN = (1, "236a59e5b5f46bf0973d87a05c563d00a768870296621b659154934025eb8256")
"""The version, and the SHA-256 of everything that the model is told in it."""


def everything_told() -> Iterator[Request]:
    """One request of each kind, and each way of asking again: the same data, so that only our own words can differ."""
    yield facts_request((Piece("Week in Lisbon", "2025-03-14", "User: I like tea."), Piece("", "unknown", "User: Hi.")))
    yield reduction_request(Batch("preferences", ("Likes tea.", "Likes green tea.")))
    facts = facts_of({"preferences": ("Likes tea.",)})
    yield memory_request(facts)
    block = Block((Formatted(("=== Tea ===", "User: I like tea.")), Formatted(("=== Coffee ===", "User: No coffee."))))
    yield sections_request(block, "## Preferences\nLikes tea.")
    for stop_reason in ("end_turn", "max_tokens", "refusal", "pause_turn"):
        unusable = Answer("", "", stop_reason, 1, 1, recorded=False)
        defect = defect_of(unusable, 9)
        assert defect is not None
        yield memory_request(facts, [defect])
        yield sections_request(block, "", judge_sections(unusable)[2])


def test_a_prompt_is_changed_together_with_its_version() -> None:
    """A replay of what older prompts wrote picks runs by this number: unchanged, it would miss them all."""
    told = [(request.system, request.user, request.schema, request.max_tokens) for request in everything_told()]
    sha256 = hashlib.sha256(json.dumps(told, default=dict).encode()).hexdigest()
    assert (PROMPT_VERSION, sha256) == KNOWN, (
        f"what the model is told has changed: raise PROMPT_VERSION in consumer/full_pass/prompt_version.py by one, and let KNOWN "
        f'say (that version, "{sha256}")'
    )
