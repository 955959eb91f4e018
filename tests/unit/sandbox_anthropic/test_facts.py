"""What the stand-in takes for facts, and where it looks for them."""

from __future__ import annotations

import json
import time

import pytest

from sandbox.anthropic.facts import CATEGORIES, facts_in
from sandbox.anthropic.speech import has_speech, messages_of_user, sentences

FENCES = [
    ('<conversation title="T" date="2025-01-01">', "</conversation>"),
    ("<chunk-3f9a title='T'>", "</chunk-3f9a>"),
    ("```chat", "```"),
    ("=== begin 3f9a12 ===", "=== end 3f9a12 ==="),
    ("<<<3f9a12 title", ">>>"),
    ("~~~~ title", "~~~~"),
]


@pytest.mark.parametrize(("opening", "closing"), FENCES)
def test_a_message_goes_on_until_the_next_label_and_ends_with_its_fence(opening: str, closing: str) -> None:
    chunk = f"{opening}\n# T\n\nUser: I like tea.\nI like scones.\nAssistant: I like both.\nSo do we.\nUser: Bye.\n{closing}\n"
    assert messages_of_user(chunk + "I like nothing.\n" + chunk) == ["I like tea.\nI like scones.", "Bye."] * 2


def test_a_code_block_inside_a_tag_does_not_end_the_message() -> None:
    text = "<chunk>\nUser: Look:\n```\nx = 1\n```\nI prefer tabs.\n</chunk>"
    assert facts_in(text)["preferences"] == ["I prefer tabs."]


def test_conversations_as_sections_get_them_end_at_the_next_heading_and_at_memory() -> None:
    text = (
        '=== Conversation: "A" (2025-01-01) ===\nUser: one\ntwo\n\n=== Conversation: "B" (unknown date) ===\n'
        "Assistant: no\nUser: three\n\n## MEMORY (verified facts about this user)\n## Preferences\n- I like tea."
    )
    assert messages_of_user(text) == ["one\ntwo", "three"]


def test_text_without_a_label_is_nobodys() -> None:
    """A piece of a conversation that begins in the middle of a message can't say whose words those are."""
    assert facts_in("<chunk>\nI like tea.\nUser: I like milk.\n</chunk>")["preferences"] == ["I like milk."]
    assert not has_speech("I like tea. User: no label here")


@pytest.mark.parametrize(
    ("category", "sentence"),
    [
        ("preferences", "I really prefer short answers."),
        ("preferences", "I'm allergic to peanuts."),
        ("preferences", "I’m vegetarian, by the way."),
        ("preferences", "I never eat fish!"),
        ("preferences", "My favourite city is Lisbon."),
        ("preferences", "I don't like meetings before ten."),
        ("projects", "I'm currently working on a bread oven."),
        ("projects", "We've been building a boat."),
        ("projects", "I started a podcast with Ana"),
        ("dates", "My flight is on 2025-06-01."),
        ("dates", "Our wedding is on May 3rd, 2026."),
        ("dates", "My mother's birthday is soon."),
        ("dates", "I have an exam next Friday."),
        ("beliefs", "I firmly believe in public libraries."),
        ("beliefs", "Honesty is important to me and my family."),
        ("decisions", "I've decided to leave the bank because it makes me ill."),
        ("decisions", "We're going with the blue tiles."),
        ("decisions", "I finally quit smoking."),
    ],
)
def test_a_sentence_goes_to_the_category_of_its_cue(category: str, sentence: str) -> None:
    facts = facts_in(f"User: Hello. {sentence}\nAssistant: I like it.")
    assert {name: len(found) for name, found in facts.items()} == {name: int(name == category) for name in CATEGORIES}
    assert sentence in json.dumps(facts, ensure_ascii=False)


@pytest.mark.parametrize(
    "sentence",
    [
        "Should I always use tabs?",
        "What do I like?",
        "I want to know the capital of Peru.",
        "Write a poem about rain.",
        "The meeting is on 12 May.",
        "She loves tea.",
    ],
)
def test_what_says_nothing_about_the_user_is_no_fact(sentence: str) -> None:
    assert not any(facts_in(f"User: {sentence}").values())


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ('I\'m building an app called "Petal Map" for my sister.', "Petal Map"),
        ("I'm building Petal Map for my sister.", "Petal Map"),
        ("I'm working on a bread oven for the garden.", "a bread oven"),
    ],
)
def test_a_project_is_named_by_its_quotes_its_capitals_or_its_words(sentence: str, name: str) -> None:
    assert facts_in(f"User: {sentence}")["projects"][0]["name"] == name


def test_a_decision_brings_its_reason_and_a_project_what_follows() -> None:
    facts = facts_in("User: I chose oak because it lasts. I'm building a table. It seats ten.")
    assert facts["decisions"] == [{"decision": "I chose oak because it lasts.", "context": "because it lasts."}]
    assert facts["projects"][0]["details"] == "It seats ten."


def test_sentences_stay_exactly_as_they_stand() -> None:
    message = 'I like "this."  And that… Then\tthis!\n\n- a list item\n日本語です。次の文。'
    found = sentences(message)
    assert found == ['I like "this."', "And that…", "Then\tthis!", "- a list item", "日本語です。", "次の文。"]
    assert all(sentence in message for sentence in found)


def test_the_mark_of_a_truncated_message_is_not_the_users() -> None:
    assert messages_of_user("User: I like te... [truncated]\nAssistant: x") == ["I like te"]


def test_the_cost_grows_with_the_text_alone() -> None:
    """A stand-in that slows down with the export would make every measurement of the service one of itself."""
    hostile = [
        "I" * 200_000,
        "I " * 100_000,
        "<" * 200_000,
        '{"' * 100_000,
        "my " * 60_000 + "?",
        "I never " * 25_000,
        "“" * 200_000,
    ]
    for text in hostile:
        started = time.process_time()
        facts_in(f"User: {text}")
        assert time.process_time() - started < 2
