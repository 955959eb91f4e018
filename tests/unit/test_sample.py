"""The sample export is what the demo shows and what tests read; here it is held to be written, various, valid, stable."""

import inspect
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sandbox import sample

SECTION_FIELDS = {
    "soul": [
        "communication_style",
        "personality_traits",
        "tone_preferences",
        "boundaries",
        "humor_style",
        "formality_level",
        "emotional_patterns",
    ],
    "identity": ["ai_name", "archetype", "vibe", "emoji_style", "signature_greeting"],
    "user": ["name", "location", "occupation", "relationships", "interests", "life_context", "preferred_address"],
    "agents": ["response_style", "behavioral_rules", "context_adaptation", "memory_directives", "do_not"],
    "tools": ["likely_usage", "capabilities_emphasis", "output_preferences", "depth_preference"],
}


@cache
def export() -> tuple[Any, ...]:
    return tuple(sample.sample_export())


def test_at_least_60_conversations_are_written_out_and_250_are_short() -> None:
    threads, everyday = sample.conversations("threads"), sample.conversations("everyday")
    assert len(threads) >= 60
    assert len(everyday) >= 250
    assert all(len(conversation.messages) >= 4 for conversation in threads)
    assert all(2 <= len(conversation.messages) <= 4 for conversation in everyday)


def test_the_files_are_in_the_order_of_time_and_the_speakers_take_turns() -> None:
    """A line that starts with a speaker's name inside a message would silently become a message of its own."""
    assert turns("threads") + turns("everyday") == []
    for folder in ("threads", "everyday"):
        for file in sorted(sample_folder().joinpath(folder).iterdir()):
            headings = re.findall(r"^=== .{16}", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert headings == sorted(headings), file.name


def turns(folder: str) -> list[str]:
    """The titles of conversations in which somebody speaks twice in a row, or the assistant first."""
    return [
        conversation.title
        for conversation in sample.conversations(folder)
        if any(role != ("assistant" if position % 2 else "user") for position, (role, _) in enumerate(conversation.messages))
    ]


def test_no_text_and_no_title_comes_twice() -> None:
    """Texts combined from lists of words repeat themselves; written ones don't."""
    written = sample.conversations("threads") + sample.conversations("everyday")
    texts = Counter(text for conversation in written for _, text in conversation.messages)
    texts.update(part.strip() for element in sample.shapes().values() for part in shape_texts(element))
    assert [text for text, times in texts.items() if times > 1] == []
    titles = Counter(conversation.title for conversation in written)
    assert [title for title, times in titles.items() if times > 1] == []


def shape_texts(value: Any) -> Iterator[str]:
    """Every string that stands in `parts`, however deep and odd the element is."""
    if isinstance(value, dict):
        yield from (part for part in value.get("parts", []) if isinstance(part, str) and part.strip())
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from shape_texts(inner)


def test_three_years_pass_and_every_month_has_a_conversation() -> None:
    times = [c.at for folder in ("threads", "everyday") for c in sample.conversations(folder)]
    months = {(at.year, at.month) for at in times}
    first, last = min(times), max(times)
    assert (last - first).days >= 3 * 365
    assert len(months) == (last.year - first.year) * 12 + last.month - first.month + 1


def test_the_sample_reaches_what_chunks_and_facts_do_with_long_texts() -> None:
    """One message is longer than what a chunk keeps of it, and one conversation needs more than one chunk (specification 3)."""
    threads = sample.conversations("threads")
    assert any(len(text) > 5_000 for conversation in threads for _, text in conversation.messages)
    assert any(sum(min(len(text), 5_000) for _, text in c.messages) > 2_000 * 4 for c in threads)


def test_the_build_is_the_same_every_time_and_of_a_reasonable_size(tmp_path: Path) -> None:
    info = sample.build_sample(tmp_path / "conversations.json")
    sample.build_sample(tmp_path / "again.json")
    written = info.path.read_bytes()
    assert written == (tmp_path / "again.json").read_bytes()
    assert written.isascii()
    assert json.loads(written) == list(export())
    assert 350_000 <= info.size_bytes == len(written) <= 800_000
    assert (info.written, info.everyday, info.shapes) == tuple(
        map(len, (sample.conversations("threads"), sample.conversations("everyday"), sample.shapes()))
    )


def test_every_conversation_can_be_read_by_any_json_parser() -> None:
    """NaN and raw control characters would make the whole file invalid for stricter readers than ours."""
    for element in export():
        assert json.dumps(element, allow_nan=False)


def test_the_zip_is_the_same_every_time_and_looks_as_chatgpt_sends_it(tmp_path: Path) -> None:
    sample.build_sample(tmp_path / "one.zip")
    sample.build_sample(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert {"conversations.json", "chat.html", "user.json"} <= set(archive.namelist())
        assert json.loads(archive.read("conversations.json")) == list(export())


def test_elements_stand_newest_first() -> None:
    """ChatGPT writes an export so; whoever reads it must not take the order of the file for the order of time."""
    found = [element.get("create_time") for element in export() if isinstance(element, dict)]
    times = [time for time in found if isinstance(time, float)]
    assert len(times) > 300
    assert times == sorted(times, reverse=True)


def test_the_quick_pass_left_all_five_sections_with_every_field() -> None:
    sections = {name: json.loads(text) for name, text in sample.quick_pass_sections().items()}
    assert {name: list(section) for name, section in sections.items()} == SECTION_FIELDS


def test_no_sentence_of_the_person_stands_in_code() -> None:
    """What the demo's MEMORY says has to come from the export, so no other place may know it."""
    code = inspect.getsource(sample)
    for word in ("Ines", "Jonah", "Pickle", "Bristol", "Kiln", "Gaugewatch"):
        assert word not in code


def sample_folder() -> Path:
    return Path(inspect.getfile(sample)).parent
