"""The reader finds what the specification says, whatever is in the export."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.errors import FinalError
from consumer.exports.conversations import Conversation
from consumer.exports.large import read_large
from consumer.exports.text import create_time_of, id_of, title_of
from sandbox.sample import sample_export
from schemas.events import ErrorCode
from tests.unit.exports.examples import read
from tests.unit.exports.naive_reader import Found, Unreadable, read_naively
from tests.unit.exports.odd_exports import OddExports
from tests.unit.exports.spellings import Spelling
from tests.unit.exports.test_formats import _zip

EXAMPLES = int(os.environ.get("NAIVE_READER_EXAMPLES", "0"))
SEED = int(os.environ.get("NAIVE_READER_SEED", "2026"))
KEPT_CHARS = 5_001
KEPT_CHARS_OF_TITLE = 5_000  # what no title and no id of an export comes near to
KEPT_CHARS_OF_ID = 500


def found_by_us(content: bytes) -> list[Found | int] | None:
    """What the reader finds, in the words of the naive one; None: unreadable."""
    try:
        elements = read(content)
    except FinalError as error:
        if error.code is not ErrorCode.EXPORT_UNREADABLE:
            raise
        return None
    return [_as_found(each) if isinstance(each, Conversation) else each.index for each in elements]


def _as_found(each: Conversation) -> Found:
    messages = tuple((message.role, message.text) for message in each.messages)
    return Found(each.index, each.conversation_id, each.title, each.create_time, messages)


def found_naively(documents: list[bytes]) -> list[Found | int] | None:
    """What there is to find, of each text as much as anything ever looks at."""
    try:
        elements = read_naively(documents)
    except Unreadable:
        return None
    return [each if isinstance(each, int) else shortened(each) for each in elements]


def shortened(each: Found) -> Found:
    """As much of a conversation as the reader keeps."""
    messages = tuple((role, text[:KEPT_CHARS]) for role, text in each.messages)
    return replace(
        each, conversation_id=each.conversation_id[:KEPT_CHARS_OF_ID], title=each.title[:KEPT_CHARS_OF_TITLE], messages=messages
    )


def packed(documents: list[bytes], chance: Random) -> bytes:
    """The documents as one file. A gzip file's members come to the reader as they are, so it meets ends of pieces anywhere."""
    if len(documents) > 1:
        return _zip({f"conversations-{number}.json": document for number, document in enumerate(documents)})
    [document] = documents
    kind = chance.choice(("json", "json", "zip", "gzip", "gzip"))
    if kind == "gzip":
        size = max(chance.choice((1, 3, 17, 64, 1_000)), len(document) // 300)
        return b"".join(gzip.compress(document[start : start + size], 1) for start in range(0, len(document) or 1, size))
    return document if kind == "json" else _zip({"conversations.json": document})


def _compare(chance: Random, documents: list[bytes], note: object = "") -> None:
    assert found_by_us(packed(documents, chance)) == found_naively(documents), (note, documents)


@settings(max_examples=EXAMPLES or 50, deadline=None, derandomize=not EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_the_reader_finds_what_the_specification_says(chance: Random) -> None:
    _compare(chance, OddExports(chance).documents())


@pytest.mark.parametrize("part", range(4))
def test_the_reader_finds_what_the_specification_says_many_times(part: int) -> None:
    """Chance of its own is faster than hypothesis's, so it gets further; only what it finds is larger."""
    for number in range((EXAMPLES or 1_200) // 4):
        seed = f"{SEED}.{part}.{number}"
        chance = Random(seed)
        _compare(chance, OddExports(chance).documents(), seed)


def _compare_large(data: bytes, piece_bytes: int, note: object) -> None:
    """The same is found where a conversation is too large to be read at once."""
    [expected] = read_naively([b"[" + data + b"]"])
    found = read_large(memoryview(data), piece_bytes)
    if isinstance(expected, int):
        assert isinstance(found, str), note
        return
    assert isinstance(found, tuple), note
    raw, messages = found
    ours = Conversation(0, id_of(raw) or "conv_0", title_of(raw), create_time_of(raw), messages)
    assert _as_found(ours) == shortened(expected), note


@pytest.mark.parametrize("piece_bytes", [500, 1_000, 6_000])
def test_a_conversation_that_is_too_large_to_be_read_at_once_says_the_same(piece_bytes: int) -> None:
    for number in range(EXAMPLES or 250):
        seed = f"{SEED}.large.{piece_bytes}.{number}"
        chance = Random(seed)
        data = Spelling(chance).text(OddExports(chance).conversation()).encode("utf-8", "surrogatepass")
        _compare_large(data, piece_bytes, (seed, data))


@pytest.mark.parametrize(
    "text",
    ["a", "x" + "é" * 40_000, " " * 1_000_000 + "b", "x\u2003" + "\u2003" * 400_000, "\u2003" * 70_000 + "c", "\n" * 9_000],
)
def test_a_text_of_megabytes_says_the_same(text: str) -> None:
    for content in ([" " * 6_000, text], {"text": text, "parts": ["p"]}, text):
        made = {"mapping": {"a": {"message": {"author": {"role": "user"}, "content": content}}}, "title": text, "id": text}
        data = json.dumps(made, ensure_ascii=False).encode()
        _compare_large(data, 1_000, content)
        assert found_by_us(b"[" + data + b"]") == found_naively([b"[" + data + b"]"])


def test_a_file_that_is_cut_off_or_goes_on_after_its_end_is_unreadable() -> None:
    for number in range(EXAMPLES or 200):
        seed = f"{SEED}.cut.{number}"
        chance = Random(seed)
        document = OddExports(chance).documents()[0]
        end = chance.randrange(len(document) + 1)
        _compare(chance, [document[:end]], seed)
        _compare(chance, [document + chance.choice([b"x", b"]", b"}", b",", b"[]", b"\0", b'""', b" {}", b"\n"])], seed)


FOREIGN = sorted((Path(__file__).resolve().parents[4] / "shared" / "exports").glob("*.json"))

if FOREIGN:  # without them there is nothing to test, and nothing that was skipped

    @pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.name)
    def test_an_export_of_other_peoples_making_says_the_same_to_both(path: Path) -> None:
        document = path.read_bytes()
        assert found_by_us(document) == found_naively([document])


def test_the_sample_says_the_same_to_both() -> None:
    document = json.dumps(list(sample_export())).encode()
    found = found_by_us(document)
    assert found == found_naively([document])
    assert found is not None
    assert len(found) > 300
