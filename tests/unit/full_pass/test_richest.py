"""The 200 richest conversations and their block (specification 6)."""

from __future__ import annotations

import random

import pytest

from consumer.exports.conversations import Conversation
from consumer.exports.messages import Message
from consumer.full_pass.richest import Block, Richest, format_block, score
from tests.unit.exports.examples import conversation

SEED = 20261124


def _richest(*conversations: Conversation) -> Block:
    richest = Richest()
    for each in conversations:
        richest.offer(each)
    return format_block(richest.chosen())


def _titles(block: Block) -> list[str]:
    return [part.split('"')[1] for part in block.parts]


def _of(title: str, *messages: str, create_time: float | None = None) -> Conversation:
    return conversation(*(messages or ("a", "b", "c", "d")), title=title, create_time=create_time)


def test_the_score_is_messages_words_of_the_user_balance_and_a_trace_of_time() -> None:
    made = Conversation(
        0, "i", "T", 1_700_000_000.5,
        (Message("user", "x" * 600), Message("user", "yy"), Message("user", "z"), Message("assistant", "w" * 999)),
    )  # fmt: skip
    assert score(made) == 10 * 4 + (500 + 2 + 1) + 20 * 1 + 1_700_000_000.5 / 1e12
    assert score(conversation("a", "b")) == 10 * 2 + 1 + 20


def test_highest_score_first_and_ties_in_export_order() -> None:
    block = _richest(
        _of("low"), _of("tie 1", "aa", "b", "c", "d"), _of("high", "aaa", "b", "c", "d"), _of("tie 2", "aa", "b", "c", "d"),
        _of("newer", "aa", "b", "c", "d", create_time=2e9), _of("older", "aa", "b", "c", "d", create_time=1e9),
    )  # fmt: skip
    assert _titles(block) == ["high", "newer", "older", "tie 1", "tie 2", "low"]


def test_only_conversations_with_four_visible_messages_are_eligible() -> None:
    assert _titles(_richest(_of("three", "x" * 500, "b", "x" * 500), _of("four"), _of("none", *()))) == ["four", "none"]
    assert _titles(_richest(_of("three", "x" * 500, "b", "x" * 500), _of("four"))) == ["four"]


def test_without_an_eligible_one_the_first_200_that_have_any_message_are_taken_as_they_are() -> None:
    empty = Conversation(0, "i", "empty", None, ())
    few = [_of(str(number), "x" * number, "b") for number in range(1, 300)]
    assert _titles(_richest(empty, *few)) == [str(number) for number in range(1, 201)]


def test_the_200_highest_are_those_that_sorting_everything_finds() -> None:
    print(f"seed {SEED}")  # noqa: T201  a failure can be repeated with it
    chance = random.Random(SEED)
    made = [_of(str(place), "x" * chance.randrange(60), "b", "c", "d") for place in range(1_000)]
    expected = sorted(made, key=score, reverse=True)[:200]
    assert _titles(_richest(*made)) == [each.title for each in expected]


def test_the_block_byte_for_byte() -> None:
    block = _richest(
        _of('A "title"', "hello", "hi\nthere", "x" * 2_001, "y" * 2_000, create_time=1_700_000_000.0),
        _of("B", "a", "b", "c", "d "),
    )
    assert block.text == (
        '=== Conversation: "A "title"" (2023-11-14) ===\n'
        "User: hello\n"
        "Assistant: hi\nthere\n"
        f"User: {'x' * 2_000}... [truncated]\n"
        f"Assistant: {'y' * 2_000}\n"
        "\n"
        '=== Conversation: "B" (unknown date) ===\n'
        "User: a\nAssistant: b\nUser: c\nAssistant: d "
    )
    assert "\n\n".join(block.parts) == block.text


def _with_length(title: str, chars: int, rank: int) -> Conversation:
    """A conversation whose formatted text has exactly so many characters, and whose score rises with `rank`."""
    head = len(f'=== Conversation: "{title}" (unknown date) ===')
    rest = chars - head - 3 * len("\nUser: a") - rank * len("\nUser: a")
    messages = [Message("user", "a")] * (3 + rank)
    while rest > 1_500:
        messages.append(Message("assistant", "x" * (1_000 - len("\nAssistant: "))))
        rest -= 1_000
    messages.append(Message("assistant", "x" * (rest - len("\nAssistant: "))))
    made = Conversation(0, "i", title, None, tuple(messages))
    assert len(_richest(made).text) == chars
    return made


def test_the_budget_counts_separators_and_is_met_exactly() -> None:
    first, second = _with_length("A", 3_000, 9), _with_length("B", 2_000, 1)
    richest = Richest()
    richest.offer(first)
    richest.offer(second)
    assert len(format_block(richest.chosen(), 5_002).text) == 5_002
    assert _titles(format_block(richest.chosen(), 5_001)) == ["A"]


def test_one_that_does_not_fit_is_skipped_and_the_next_is_tried() -> None:
    richest = Richest()
    for made in (_with_length("A", 3_000, 9), _with_length("B", 2_500, 5), _with_length("C", 1_000, 1)):
        richest.offer(made)
    assert _titles(format_block(richest.chosen(), 5_000)) == ["A", "C"]


def test_the_first_is_shortened_to_its_first_messages_when_it_does_not_fit() -> None:
    richest = Richest()
    richest.offer(_of("A", "x" * 100, "y" * 100, "z" * 100, "w" * 100))
    whole = format_block(richest.chosen()).text
    head = whole.split("\nUser: z")[0]
    assert format_block(richest.chosen(), len(head)).text == head
    assert format_block(richest.chosen(), len(head) - 1).text == head.split("\nAssistant")[0]
    assert format_block(richest.chosen(), 100) == Block(())


def test_one_of_which_not_even_a_message_fits_is_skipped_and_the_next_may_be_shortened() -> None:
    richest = Richest()
    richest.offer(_of("A", "x" * 500, "y", "z", "w"))
    richest.offer(_of("B", "x" * 10, "y" * 500, "z", "w"))
    assert format_block(richest.chosen(), 100).text == '=== Conversation: "B" (unknown date) ===\nUser: xxxxxxxxxx'


def test_600000_characters_are_the_most_and_what_is_behind_them_is_not_kept() -> None:
    long = Conversation(0, "i", "A", None, tuple(Message("user", "é" * 1_990) for _ in range(1_000)))
    richest = Richest()
    richest.offer(long)
    block = format_block(richest.chosen())
    assert 600_000 - 2_000 < len(block.text) <= 600_000
    assert block.text == "\n".join(
        ['=== Conversation: "A" (unknown date) ===', *["User: " + "é" * 1_990] * ((600_000 - 41) // 1_997)]
    )


def test_a_block_gets_shorter_from_its_end_and_then_its_only_conversation_does() -> None:
    block = _richest(_of("A", "aa", "b", "c", "d"), _of("B"))
    assert _titles(block.without_last()) == ["A"]
    left = block.without_last().without_last()
    assert left.text == '=== Conversation: "A" (unknown date) ===\nUser: aa\nAssistant: b\nUser: c'
    assert left.without_last().without_last().parts == ('=== Conversation: "A" (unknown date) ===\nUser: aa',)
    assert left.without_last().without_last().without_last() == Block(())
    assert Block(()).without_last() == Block(())


@pytest.mark.parametrize("length", [10, 200])
def test_memory_does_not_grow_with_the_export(length: int) -> None:
    richest = Richest()
    for number in range(1_000):
        richest.offer(_of(str(number), "a", "b"))
    assert len(richest.chosen()) == 200
    for number in range(1_000):
        richest.offer(_of(str(number), *["x" * length] * 4))
    assert len(richest.chosen()) == 200
    assert not richest._first
