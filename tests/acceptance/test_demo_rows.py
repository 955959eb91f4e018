"""The demo's path: every column of the run, the profile and the chunks, and where each line of the MEMORY comes from."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox import sample
from schemas.events import SECTION_NAMES, run_id_of
from tests.acceptance import reference
from tests.acceptance.sample_run import (
    Passed,
    answers,
    bought_by,
    completion_event,
    header,
    sampled,
    trace_id,
    visible_shapes,
)
from tests.acceptance.worker import until
from tests.acceptance.world import User, user_text


def test_every_conversation_with_4_messages_is_sampled_word_by_word_the_richest_first(passed: Passed) -> None:
    plain = [*sample.conversations("threads"), *sample.conversations("everyday")]
    ranked = reference.richest([reference.Talk("", talk.title, talk.at, talk.messages) for talk in plain])
    (request,) = [each for each in bought_by(passed) if each["kind"] == "sections"]
    places = [user_text(request).index(reference.block_text([talk])) for talk in ranked]
    assert places == sorted(places)
    assert len(ranked) <= sampled(passed) <= len(ranked) + visible_shapes()


def test_every_column_of_the_run_is_what_the_specification_says(passed: Passed) -> None:
    run, bought = dict(passed.run), bought_by(passed)
    assert run["created_at"] <= run["due_at"] <= run["started_at"] <= run["memory_saved_at"] <= run["finished_at"]
    assert trace_id(run["traceparent"]) == trace_id(header(completion_event(passed), "traceparent"))
    event = {name: value for name, value in json.loads(run["event"]).items() if value is not None}
    assert event == passed.user.event
    story = [(each["attempt"], each["what"]) for each in json.loads(run["story"])]
    assert story == [(1, what) for what in ("claimed", "reading", "facts", "memory", "sections", "completed")]
    timed = {"created_at", "due_at", "started_at", "memory_saved_at", "finished_at", "traceparent", "event", "story"}
    assert {name: value for name, value in run.items() if name not in timed} == {
        "run_id": run_id_of(passed.user.uuid, passed.user.key, 0),
        "user_id": passed.user.uuid,
        "idempotency_key": passed.user.key,
        "generation": 0,
        "status": "completed",
        "stage": "sections",
        "attempt": 1,
        "failures": 0,
        "priority": 0,
        "held_up_since": None,
        "lease_until": None,
        "completed_at": reference.moment(passed.user.completed_at),
        "profile_version": 2,
        "coverage": 1.0,
        "model_calls": len(bought),
        "input_tokens": sum(each["usage"]["input_tokens"] for each in bought),
        "output_tokens": sum(each["usage"]["output_tokens"] for each in bought),
        "cost_usd": sum(
            reference.cost_usd(each["usage"]["input_tokens"], each["usage"]["output_tokens"]) for each in bought
        ),
        "error_code": None,
        "error_detail": None,
        "model": "claude-haiku-4-5-20251001",
        "prompt_version": 1,
    }  # fmt: skip


@pytest.mark.guarantee("G4")
def test_every_column_of_the_profile_is_what_the_specification_says(passed: Passed) -> None:
    profile = dict(passed.profile)
    sections = {name: profile.pop(f"{name}_md") for name in SECTION_NAMES}
    assert all(reference.is_json_text_of_section(name, text) for name, text in sections.items())
    assert {name: json.loads(text) for name, text in sections.items()} == answers(passed, "sections")[0]
    memory = profile.pop("memory_md")
    assert [line for line in memory.split("\n") if line.startswith("#")] == list(reference.MEMORY_HEADINGS)
    assert profile.pop("soulprint_text") == reference.soulprint({name: json.loads(sections[name]) for name in sections}, memory)
    assert passed.run["started_at"] <= profile.pop("full_pass_started_at") <= passed.run["memory_saved_at"]
    assert passed.run["memory_saved_at"] <= profile.pop("full_pass_completed_at") <= passed.run["finished_at"]
    assert profile == {
        "user_id": passed.user.uuid,
        "full_pass_status": "complete",
        "full_pass_error": None,
        "profile_version": 2,
    }


def test_every_chunk_of_the_sample_is_what_the_specification_says(passed: Passed) -> None:
    """All written and everyday conversations word by word; of the odd shapes, that they are there."""
    completed_at = reference.moment(passed.user.completed_at)
    found: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for row in passed.world.chunks(passed.user):
        found.setdefault((row["title"], row["created_at"]), []).append(row)
    plain = [*sample.conversations("threads"), *sample.conversations("everyday")]
    for talk in plain:
        rows = found.pop((talk.title, talk.at))
        text = reference.chunk_text(reference.Talk("", talk.title, talk.at, talk.messages))
        assert reference.is_whole_split([row["content"] for row in rows], text), talk.title
        for index, row in enumerate(rows):
            assert {name: row[name] for name in row if name not in {"content", "conversation_id", "title", "created_at"}} == {
                "user_id": passed.user.uuid,
                "token_count": len(row["content"]) // 4,
                "chunk_index": index,
                "total_chunks": len(rows),
                "message_count": len(talk.messages),
                "chunk_tier": "medium",
                "is_recent": talk.at > completed_at - timedelta(days=180),
            }
    assert len({row["conversation_id"] for rows in found.values() for row in rows}) == visible_shapes() - 1
    assert not [row for rows in found.values() for row in rows if not row["content"].strip()]


def test_every_line_of_the_memory_is_a_sentence_that_the_user_wrote_in_the_sample(passed: Passed) -> None:
    said = [
        " ".join(text.split())
        for folder in ("threads", "everyday")
        for talk in sample.conversations(folder)
        for role, text in talk.messages
        if role == "user"
    ]
    said += [" ".join(text.split()) for text in strings_in(sample.shapes())]
    facts = [line for line in passed.memory.split("\n") if line.startswith("- ")]
    assert len(facts) > 20
    for fact in facts:
        sentence = fact.removeprefix("- ")
        assert any(sentence in text for text in said) or any(both_in(sentence, text) for text in said), fact


def both_in(told: str, text: str) -> bool:
    """Whether a line made of two of the user's sentences has both from one message."""
    ends = [place + 1 for place, char in enumerate(told) if char in ".!?" and place + 1 < len(told)]
    return any(told[:end].strip() in text and told[end:].strip() in text for end in ends)


def strings_in(value: Any) -> list[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in strings_in(each)]


def test_no_sentence_of_the_memory_stands_in_the_sandboxs_code(passed: Passed) -> None:
    """The stand-in makes its answers of what it is asked; a MEMORY that was written beforehand would show nothing."""
    code = [" ".join(file.read_text(encoding="utf-8").split()) for file in Path(sample.__file__).parent.parent.rglob("*.py")]
    assert len(code) > 20
    sentences = [line.removeprefix("- ").rstrip(".") for line in passed.memory.split("\n") if line.startswith("- ")]
    assert [sentence for sentence in sentences if any(sentence in text for text in code)] == []


def test_the_same_sample_imported_again_buys_nothing_but_what_depends_on_the_run(passed: Passed) -> None:
    """Recorded answers serve a later event of the same user, so a re-import of the same export is free of charge."""
    again = User(passed.user.id, passed.user.path, "2026-11-22T08:00:00.000000Z")
    before = len(passed.world.asked())
    passed.world.publish(again)
    run = passed.world.until_ended(again, runs=2)
    until(lambda: len(passed.world.announced(again)) == 4, what="both runs had told their events")
    assert (run["status"], run["model_calls"], run["cost_usd"]) == ("completed", 0, 0)
    assert len(passed.world.asked()) == before
    assert passed.world.profile(again)["profile_version"] == 4
