"""Chunks, the block and the soulprint are what the specification says, whatever was said in the conversations."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from structlog.testing import capture_logs

from consumer.errors import FinalError
from consumer.exports.conversations import Conversation
from consumer.exports.messages import Message
from consumer.full_pass.chunks import to_chunks
from consumer.full_pass.richest import Block, Richest, format_block
from consumer.full_pass.soulprint import soulprint_text
from schemas.events import ErrorCode
from tests.acceptance import reference
from tests.unit.exports.naive_reader import Found, Unreadable, read_naively
from tests.unit.exports.odd_exports import TEXTS, OddExports
from tests.unit.exports.test_against_the_naive_reader import shortened
from tests.unit.full_pass import naive_texts
from tests.unit.full_pass.test_reading import COMPLETED_AT, _read

EXAMPLES = int(os.environ.get("NAIVE_READER_EXAMPLES", "0"))
SEED = int(os.environ.get("NAIVE_READER_SEED", "2026"))
RECENT = timedelta(days=180)
AROUND_RECENT = [(COMPLETED_AT - RECENT).timestamp() + seconds for seconds in (-1, 0, 1, 180 * 86_400 - 1)]
RUNS = ("x", "Word ", "A sentence. ", "\n", " ", "。", 'He said "no." ', "? y", "\n\n", "é", "\U0001f600")
WORDS = ("a", "aa", "bb", " c ", "d\ne", "\ufffd", *("word " * 99, "x" * 499, "x" * 500, "x" * 501, "y" * 2_000, "y" * 2_001))


def _chances(name: str, count: int) -> list[Random]:
    """Generators of their own for each example, which a failing test shows by its number."""
    return [Random(f"{SEED}.{name}.{number}") for number in range(EXAMPLES or count)]


def _ours(talk: Found) -> Conversation:
    messages = tuple(Message("user" if role == "user" else "assistant", text[:5_001]) for role, text in talk.messages)
    return Conversation(talk.index, talk.conversation_id, talk.title, talk.create_time, messages)


def _talk(chance: Random, index: int, texts: list[str]) -> Found:
    time = chance.choice(
        [None, 1.0, 1e9, 1714585031.123457, chance.random() * 2e9, 253_402_300_799.5, chance.choice(AROUND_RECENT)]
    )
    roles = chance.choice([("user", "assistant"), ("user", "assistant"), ("user",), ("assistant",)])
    said = [(chance.choice(roles), text) for text in texts if text.strip()]
    return Found(index, f"i{index}", chance.choice(["T", 'A "title"', "Ω\n", "t" * chance.randrange(1, 900)]), time, tuple(said))


def _long(chance: Random) -> str:
    """Much without any end of a sentence, and much that is blank."""
    kind = chance.randrange(4)
    words = "x" * chance.choice([1, 200, 2_000, 5_000])
    if kind < 2:
        return (words + chance.choice(["", " ", "\n"]) * 5_000)[:5_000]
    return "".join(
        (chance.choice(RUNS) * 5_000)[: chance.choice([3, 80, 700, 2_500, 5_000])] for _ in range(chance.randrange(1, 5))
    )


@pytest.mark.parametrize("part", range(4))
def test_chunks_are_a_whole_split_of_the_whole_text(part: int) -> None:
    for number, chance in enumerate(_chances(f"chunks.{part}", 60)):
        talk = _talk(chance, number, [_long(chance) for _ in range(chance.randrange(9))])
        chunks = to_chunks(_ours(talk), COMPLETED_AT)
        assert bool(chunks) == bool(talk.messages), number
        if not chunks:
            continue
        naive_texts.require_whole_split([chunk.content for chunk in chunks], naive_texts.whole_text(talk))
        at = naive_texts.created_at(talk) or COMPLETED_AT
        for index, chunk in enumerate(chunks):
            assert (chunk.conversation_id, chunk.title, chunk.created_at) == (talk.conversation_id, talk.title, at), number
            assert (chunk.chunk_index, chunk.total_chunks, chunk.message_count) == (index, len(chunks), len(talk.messages))
            assert (chunk.token_count, chunk.is_recent) == (len(chunk.content) // 4, at > COMPLETED_AT - RECENT), number


def _block(talks: list[Found], most: int) -> Block:
    richest = Richest()
    for talk in talks:
        richest.offer(_ours(talk))
    return format_block(richest.chosen(), most)


def test_the_richest_are_those_that_sorting_finds_and_the_block_is_what_fits_of_them() -> None:
    for number, chance in enumerate(_chances("block", 90)):
        few = chance.choice([3, 3, 9])
        count = chance.choice([1, 2, 5, 20, 20])
        texts = chance.sample(WORDS, 3) if chance.randrange(2) else list(WORDS)
        talks = [_talk(chance, index, chance.choices(texts, k=chance.randrange(few + 1))) for index in range(count)]
        chosen = naive_texts.chosen(talks)
        everything = len("\n\n".join(map(naive_texts.formatted, chosen)))
        first = len(naive_texts.formatted(chosen[0])) if chosen else 0
        for most in (600_000, everything, everything - 1, first, first - 1, first // 2, chance.randrange(everything + 1), 0):
            block = _block(talks, most)
            assert list(block.parts) == naive_texts.parts(chosen, most), (number, most)
            assert block.text == "\n\n".join(block.parts)


def test_of_more_than_200_the_richest_200_are_taken_and_of_equal_ones_the_first() -> None:
    for number, chance in enumerate(_chances("200", 10)):
        talks = [_talk(chance, index, chance.choices("ab", k=chance.choice([2, 4, 5]))) for index in range(400)]
        talks = [replace(talk, create_time=chance.choice([None, 1e9]), title=f"T{talk.index}") for talk in talks]
        talks = talks if chance.randrange(4) else [replace(talk, messages=talk.messages[:3]) for talk in talks]
        expected = list(map(naive_texts.formatted, naive_texts.chosen(talks)))
        assert len(expected) == 200, number
        assert list(_block(talks, 600_000).parts) == expected, number


def test_the_block_has_600000_characters_at_most() -> None:
    for number, chance in enumerate(_chances("600000", 3)[:100]):
        lengths = [chance.choice([4, 10, 40, 330, 1_500]) for _ in range(40)]
        talks = [_talk(chance, index, chance.choices(WORDS, k=length)) for index, length in enumerate(lengths)]
        assert list(_block(talks, 600_000).parts) == naive_texts.parts(naive_texts.chosen(talks), 600_000), number


def test_a_block_loses_its_last_conversation_and_then_the_last_message_of_the_only_one() -> None:
    for number, chance in enumerate(_chances("shorter", 50)):
        talks = [_talk(chance, index, chance.choices(WORDS, k=6)) for index in range(3)]
        chosen = naive_texts.chosen(talks)
        whole = list(map(naive_texts.formatted, chosen))
        first = [[naive_texts.formatted(chosen[0], messages)] for messages in range(len(chosen[0].messages) - 1, 0, -1)]
        block = _block(talks, 600_000)
        for expected in [*(whole[:kept] for kept in range(len(whole), 0, -1)), *first, []]:
            assert list(block.parts) == expected, number
            block = block.without_last()


def test_a_read_export_is_what_the_specification_says_from_its_bytes_to_chunks_and_block() -> None:
    for number, chance in enumerate(_chances("export", 100)):
        document = OddExports(chance).documents()[0]
        try:
            elements = read_naively([document])
        except Unreadable:
            continue
        talks = [shortened(each) for each in elements if isinstance(each, Found) and each.messages]
        with capture_logs():
            if not talks:
                _require_empty(document)
                continue
            read, chunks = _read(document)
        skipped = sum(isinstance(each, int) for each in elements)
        messages = sum(len(talk.messages) for talk in talks)
        assert (read.conversations, read.messages, read.chunks, read.skipped) == (len(talks), messages, len(chunks), skipped), (
            number
        )
        assert chunks == [chunk for talk in talks for chunk in to_chunks(_ours(talk), COMPLETED_AT)], number
        assert list(read.block().parts) == naive_texts.parts(naive_texts.chosen(talks), 600_000), number


def _require_empty(document: bytes) -> None:
    with pytest.raises(FinalError) as caught:
        _read(document)
    assert caught.value.code is ErrorCode.EXPORT_EMPTY


def test_the_soulprint_is_exact_whatever_the_sections_say() -> None:
    for number, chance in enumerate(_chances("soulprint", 100)):
        values = [text for text in TEXTS if len(text) < 50]
        sections = {
            name: {field: _value(field, values, chance) for field in fields}
            for name, (_, fields) in reference.SECTION_FIELDS.items()
        }
        memory = chance.choice(["", "## Preferences\n- tea\n", "m\n\n"])
        assert soulprint_text(sections, memory) == reference.soulprint(sections, memory), number


def _value(field: str, values: list[str], chance: Random) -> str | list[str]:
    if field in reference.LISTS:
        return [text for text in chance.choices(values, k=chance.randrange(4)) if text.strip()]
    return chance.choice(values)
