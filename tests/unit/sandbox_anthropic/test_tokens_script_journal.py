"""The small parts: counting, choosing faults, keeping the record."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.anthropic.journal import Journal
from sandbox.anthropic.script import OF_A_REQUEST, OF_AN_ITEM, Script
from sandbox.anthropic.tokens import count_tokens, cut_to_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本語", 3), ("한국어", 3), ("éé", 1), ("ab日本", 3), ("𠀀", 1)],
)
def test_tokens_are_about_four_characters_of_ascii_and_one_of_cjk(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


@pytest.mark.parametrize("text", ["word " * 50, "日本語" * 20, "mixed 日本 é 🙂 " * 9, ""])
def test_a_cut_text_is_the_longest_beginning_that_counts_so_much(text: str) -> None:
    for tokens in range(40):
        cut = cut_to_tokens(text, tokens)
        assert text.startswith(cut)
        assert count_tokens(cut) <= tokens
        assert cut == text or count_tokens(text[: len(cut) + 1]) > tokens


def test_rules_are_spent_in_order_and_skipped_requests_go_on_to_the_next_rule() -> None:
    script = Script()
    script.add(
        [
            {"match": {"kind": "facts"}, "skip": 1, "times": 2, "fault": {"kind": "hang"}},
            {"fault": {"kind": "reset"}, "times": None},
        ]
    )
    taken = [script.take("facts", "", "m", OF_A_REQUEST) for _ in range(5)]
    assert [fault.kind for fault in taken if fault] == ["reset", "hang", "hang", "reset", "reset"]


def test_a_batch_item_meets_only_faults_that_it_can_show() -> None:
    script = Script()
    script.add([{"fault": {"kind": "hang"}}, {"fault": {"kind": "batch_result", "result": "expired"}}])
    item = script.take("facts", "", "m", OF_AN_ITEM)
    request = script.take("facts", "", "m", OF_A_REQUEST)
    assert (item and item.kind, request and request.kind) == ("batch_result", "hang")


@pytest.mark.parametrize(
    "rules",
    [
        {},
        [3],
        [{}],
        [{"fault": {"kind": "unknown"}}],
        [{"fault": {"kind": "status"}}],
        [{"fault": {"kind": "status", "status": 200}}],
        [{"fault": {"kind": "batch_result", "result": "lost"}}],
        [{"fault": {"kind": "hang"}, "match": {"knd": "facts"}}],
        [{"fault": {"kind": "hang"}, "tmes": 3}],
        [{"fault": {"kind": "hang", "statsu": 3}}],
    ],
)
def test_a_rule_with_a_mistake_is_refused_and_nothing_is_added(rules: Any) -> None:
    script = Script()
    good = [{"fault": {"kind": "hang"}}]
    with pytest.raises(ValueError, match=r"rule|script|fault"):
        script.add(good + rules if isinstance(rules, list) else rules)
    assert not script


def test_a_bounded_record_forgets_requests_and_keeps_the_counts() -> None:
    journal = Journal(keep=2)
    for number in range(5):
        entry = journal.begin("POST", "/v1/messages", {"Authorization": "Bearer secret", "anthropic-version": "v"})
        entry.kind, entry.status, entry.completed, entry.output_tokens = "facts", 200, number % 2 == 0, 10
    assert [entry["number"] for entry in journal.to_json()] == [4, 5]
    summary = journal.summary()
    assert (summary["requests"], summary["completed"], summary["output_tokens"]) == (5, 3, 50)
    assert summary["kinds"]["facts"]["outcomes"] == {"200": 5}
    assert journal.to_json()[0]["headers"] == {"anthropic-version": "v", "authorization": True, "x-api-key": False}
