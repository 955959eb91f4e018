"""Chunks of a conversation (specification 3)."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.full_pass.chunks import split_lines, to_chunks
from tests.unit.exports.examples import conversation

COMPLETED_AT = datetime(2026, 11, 24, tzinfo=UTC)
OVERLAP_CHARS = 800


def _contents(*messages: str, title: str = "T") -> list[str]:
    return [chunk.content for chunk in to_chunks(conversation(*messages, title=title), COMPLETED_AT)]


def test_a_chunk_is_the_title_and_a_line_per_message() -> None:
    assert _contents("hello", "hi\nthere", "bye ", title=" A title") == [
        "#  A title\n\nUser: hello\nAssistant: hi\nthere\nUser: bye "
    ]


def test_a_message_is_cut_at_5000_characters() -> None:
    assert "".join(_contents("x" * 5_000)) == "# T\n\nUser: " + "x" * 5_000
    assert "".join(_contents("x" * 5_001)) == "# T\n\nUser: " + "x" * 5_000 + "... [truncated]"


def test_a_conversation_without_a_visible_message_has_no_chunks() -> None:
    assert _contents() == []


def test_a_chunk_knows_its_place_its_size_and_its_conversation() -> None:
    made = conversation(*(["Sentence. " * 450] * 8), title="T", index=7)
    chunks = to_chunks(made, COMPLETED_AT)
    assert len(chunks) > 3
    for index, chunk in enumerate(chunks):
        assert (chunk.chunk_index, chunk.total_chunks, chunk.message_count) == (index, len(chunks), 8)
        assert (chunk.conversation_id, chunk.title) == ("conv_7", "T")
        assert chunk.token_count == len(chunk.content) // 4


def _joined(contents: list[str]) -> str:
    return contents[0] + "".join(content[OVERLAP_CHARS:] for content in contents[1:])


_LONG = st.lists(
    st.tuples(st.sampled_from(["x", ". ", "\n", " ", "。", "? y", "word "]), st.integers(1, 5_000)), min_size=1, max_size=6
).map(lambda runs: "".join((text * count)[:count] for text, count in runs))


@given(st.lists(_LONG, min_size=1, max_size=5))
@example(["x" * 2_000 + "\n" * 3_000, "y" * 5_000, "z" * 5_000])
@example(["x" * 5_000, "y" * 2_000 + "\n" * 3_000])
@example(["x" * 5_000, "y" * 1_000 + " " * 4_000])
def test_no_text_is_lost_no_chunk_is_blank_and_none_has_more_than_2000_tokens(messages: list[str]) -> None:
    contents = _contents(*messages)
    lines = [
        ("User: " if place % 2 == 0 else "Assistant: ") + text[:5_000] + ("... [truncated]" if len(text) > 5_000 else "")
        for place, text in enumerate(messages)
    ]
    assert _joined(contents) == "# T\n\n" + "\n".join(lines)
    for content in contents:
        assert content.strip()
        assert len(content) // 4 <= 2_000
    for before, after in itertools.pairwise(contents):
        assert after[:OVERLAP_CHARS] == before[-OVERLAP_CHARS:]
        assert len(after) > OVERLAP_CHARS


def test_a_piece_that_would_be_blank_goes_on_without_a_boundary() -> None:
    contents = _contents("x" * 5_000, "y" * 200 + "\n" * 4_800, "z" * 5_000, "w" * 5_000, title="T" * 300)
    assert all(content.strip() for content in contents)


@pytest.mark.parametrize("end", [". ", "! ", "? ", '." ', "\n", "。", "！", "？"])
def test_a_chunk_ends_where_a_sentence_or_a_line_does(end: str) -> None:
    first, second = "x" * 4_900, "y" * 2_000 + end
    assert _contents(first, second + "z" * 2_900)[0] == f"# T\n\nUser: {first}\nAssistant: {second}"


def test_the_last_end_of_a_sentence_that_fits_is_taken() -> None:
    sentences = [f"This is sentence {number}. " for number in range(150)]
    contents = _contents(*("".join(sentences) for _ in range(5)))
    assert all(content.endswith((". ", "\n")) for content in contents[:-1])
    assert all(len(content) > 7_900 for content in contents[:-1])


def test_a_text_without_any_boundary_is_still_split() -> None:
    text = "".join(str(number) for number in range(5_000))
    pieces = list(split_lines([text]))
    assert [len(piece) for piece in pieces[:-1]] == [8_000] * (len(pieces) - 1)
    assert _joined(pieces) == text


@pytest.mark.parametrize(
    ("age", "is_recent"), [(timedelta(days=180), False), (timedelta(days=180, seconds=-1), True), (timedelta(days=-1), True)]
)
def test_a_conversation_is_recent_within_180_days_before_the_event(age: timedelta, is_recent: bool) -> None:
    made = conversation("a", create_time=(COMPLETED_AT - age).timestamp())
    [chunk] = to_chunks(made, COMPLETED_AT)
    assert (chunk.is_recent, chunk.created_at) == (is_recent, COMPLETED_AT - age)


def test_a_conversation_without_a_time_has_the_events() -> None:
    [chunk] = to_chunks(conversation("a"), COMPLETED_AT)
    assert (chunk.created_at, chunk.is_recent) == (COMPLETED_AT, True)
