"""Which messages are visible, and their text (specification 2)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.exports.examples import node, read_one, said, simple, texts, with_content

HIDDEN = "is_visually_hidden_from_conversation"
USER_SYSTEM = "is_user_system_message"


def _message(role: Any, **message: Any) -> list[tuple[str, str]]:
    return said({"mapping": {"a": node("x", role=role, **message)}})


def test_user_and_assistant_are_visible() -> None:
    assert _message("user") == [("user", "x")]
    assert _message("assistant") == [("assistant", "x")]


@pytest.mark.parametrize("role", ["tool", "system", "developer", "", "User", None, 7, ["user"]])
def test_no_other_role_is_visible(role: Any) -> None:
    assert _message(role) == []


def test_a_system_message_of_the_users_counts_as_the_users() -> None:
    assert _message("system", metadata={USER_SYSTEM: True}) == [("user", "x")]


@pytest.mark.parametrize("flag", [False, None, 1, "true", [True], {}])
def test_flags_count_only_when_they_are_exactly_true(flag: Any) -> None:
    assert _message("system", metadata={USER_SYSTEM: flag}) == []
    assert _message("user", metadata={HIDDEN: flag}) == [("user", "x")]


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_hidden_message_is_never_visible(role: str) -> None:
    assert _message(role, metadata={HIDDEN: True, USER_SYSTEM: True}) == []


def test_a_tool_is_never_visible_whatever_its_flags_say() -> None:
    assert _message("tool", metadata={USER_SYSTEM: True}) == []


@pytest.mark.parametrize("metadata", [None, 7, "x", [HIDDEN]])
def test_metadata_of_the_wrong_type_counts_as_absent(metadata: Any) -> None:
    assert _message("user", metadata=metadata) == [("user", "x")]
    assert _message("system", metadata=metadata) == []


@pytest.mark.parametrize("recipient", ["browser", "python", "dalle.text2im", " ", "All"])
def test_an_assistants_message_to_a_tool_is_a_call_and_not_visible(recipient: str) -> None:
    assert _message("assistant", recipient=recipient) == []


@pytest.mark.parametrize("recipient", ["all", "", None, 7, ["browser"], "bio"])
def test_an_assistants_message_to_all_to_nobody_or_to_bio_is_visible(recipient: Any) -> None:
    assert _message("assistant", recipient=recipient) == [("assistant", "x")]


def test_a_users_message_has_no_recipient_that_matters() -> None:
    assert _message("user", recipient="python") == [("user", "x")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"parts": ["a", "b"]}, "a\nb"),
        ({"parts": ["a", "", " \n", "b"]}, "a\nb"),
        ({"parts": [" a ", "b\n"]}, " a \nb\n"),
        ({"text": "direct", "parts": ["a"]}, "direct"),
        ({"text": " direct\n"}, " direct\n"),
        ({"text": " ", "parts": ["a"]}, "a"),
        ({"text": 7, "parts": ["a"]}, "a"),
        ({"content_type": "code", "language": "python", "text": "print(1)"}, "print(1)"),
        ({"parts": [{"content_type": "audio_transcription", "text": "spoken"}, {"asset_pointer": "x"}]}, "spoken"),
        ({"parts": [{"text": " "}, {"text": 7}, {"text": None}, None, 7, True, ["no"], "a"]}, "a"),
        ({"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "what is it?"]}, "what is it?"),
        ({"content_type": 7, "parts": ["a"]}, "a"),
        ({"content_type": ["thoughts"], "parts": ["a"]}, "a"),
        ("plain", "plain"),
        (" plain ", " plain "),
        (["a", {"text": "b"}], "a\nb"),
    ],
)
def test_the_text_of_a_content(content: Any, text: str) -> None:
    assert texts(with_content(content)) == [text]


@pytest.mark.parametrize(
    "content",
    [
        None, 7, True, "", " \n\t", [], {}, {"parts": []}, {"parts": None}, {"parts": "text"}, {"parts": {"text": "x"}},
        {"parts": [""]}, {"parts": ["\u2003\u00a0"]}, {"parts": [{"asset_pointer": "file-service://x"}]}, {"text": None},
    ],
)  # fmt: skip
def test_a_message_without_text_or_of_white_space_only_does_not_count(content: Any) -> None:
    assert texts(with_content(content)) == []


@pytest.mark.parametrize("content_type", ["thoughts", "reasoning_recap", "user_editable_context", "model_editable_context"])
def test_reasoning_and_editable_contexts_have_no_text(content_type: str) -> None:
    content = {"content_type": content_type, "text": "x", "parts": ["x"], "content": "x", "thoughts": "x"}
    assert texts(with_content(content, role="assistant")) == []


def test_no_more_than_5001_characters_of_a_text_are_kept() -> None:
    assert texts(with_content("x" * 9_000)) == ["x" * 5_001]
    assert texts(with_content({"parts": ["x" * 4_000, "y" * 4_000]})) == ["x" * 4_000 + "\n" + "y" * 1_000]


def test_whether_a_text_is_blank_is_judged_on_the_whole() -> None:
    assert texts(with_content(" " * 6_000 + "x")) == [" " * 5_001]
    assert texts(with_content(" " * 6_000)) == []


def test_u0000_and_lone_surrogates_become_replacement_characters_one_for_one() -> None:
    assert texts(with_content("a\0b\ud800c\udfff\udfff")) == ["a\ufffdb\ufffdc\ufffd\ufffd"]
    assert texts(with_content("\0")) == ["\ufffd"]
    assert texts(with_content("\ud83d\ude00")) == ["\U0001f600"]
    assert texts(with_content("\0" * 6_000)) == ["\ufffd" * 5_001]
    raw = json.dumps(with_content("@")).encode().replace(b"@", "\ud800".encode("utf-8", "surrogatepass"))
    assert texts(raw) == ["\ufffd"]


def test_nan_and_raw_control_characters_are_accepted() -> None:
    raw = json.dumps(with_content("a@b", weight=0)).encode().replace(b"@", b"\n\x01").replace(b'"weight": 0', b'"weight": NaN')
    assert texts(raw) == ["a\n\x01b"]
    assert texts(raw.replace(b"NaN", b"-Infinity")) == ["a\n\x01b"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "9" * 5_000, "0." + "1" * 5_000])
def test_a_number_of_any_size_harms_nothing(number: str) -> None:
    raw = json.dumps({**with_content("a"), "create_time": 0, "update_time": 0}).replace('_time": 0', f'_time": {number}')
    assert texts(raw.encode()) == ["a"]


# Already simplified conversations and Claude.ai's


def test_a_simplified_conversation_has_user_and_assistant_as_they_are() -> None:
    conversation = {
        "messages": [
            {"role": "system", "content": "s", "metadata": {USER_SYSTEM: True}},
            {"role": "user", "content": "u", "metadata": {HIDDEN: True}},
            {"role": "tool", "content": "t"},
            {"role": "assistant", "content": "a", "recipient": "python"},
            {"role": "user", "content": [{"type": "text", "text": "p"}, "q"]},
            {"role": "user", "content": " "},
            {"author": {"role": "user"}, "content": "no role"},
            {"role": ["user"], "content": "no role"},
            {"role": {"user": 1}, "content": "no role"},
            "text",
            None,
        ]
    }
    assert said(conversation) == [("user", "u"), ("assistant", "a"), ("user", "p\nq")]


def test_claude_has_text_blocks_or_else_text() -> None:
    blocks = [
        {"type": "thinking", "thinking": "t", "text": "t"}, {"type": "text", "text": "a"}, {"type": "text", "text": " "},
        {"type": "tool_use", "text": "t"}, {"type": "text", "text": 7}, "text", {"type": "text", "text": "b"},
    ]  # fmt: skip
    conversation = {
        "uuid": "u",
        "name": "N",
        "chat_messages": [
            {"sender": "human", "text": "whole", "content": blocks},
            {"sender": "assistant", "text": "whole", "content": []},
            {"sender": "human", "text": "whole", "content": "text"},
            {"sender": "assistant", "text": " ", "content": [{"type": "text", "text": ""}]},
            {"sender": "user", "text": "no sender of Claude's"},
            {"sender": None, "text": "x"},
            {"sender": {"human": 1}, "text": "x"},
            7,
        ],
    }
    assert said(conversation) == [("user", "a\nb"), ("assistant", "whole"), ("user", "whole")]
    assert (read_one(conversation).title, read_one(conversation).conversation_id) == ("N", "u")


def test_the_first_of_mapping_messages_and_chat_messages_that_is_not_empty_counts() -> None:
    mapping = {"a": node("mapping")}
    messages = simple("messages")["messages"]
    chat = [{"sender": "human", "text": "chat"}]
    assert texts({"chat_messages": chat, "messages": messages, "mapping": mapping}) == ["mapping"]
    assert texts({"chat_messages": chat, "messages": messages, "mapping": {}}) == ["messages"]
    assert texts({"chat_messages": chat, "messages": [], "mapping": {}}) == ["chat"]
    assert texts({"chat_messages": chat, "messages": {"role": "user"}, "mapping": [1]}) == ["chat"]
    assert texts({"chat_messages": chat, "messages": [7], "mapping": None}) == []
    assert texts({"chat_messages": [], "messages": [], "mapping": {}}) == []


def test_one_value_of_the_wrong_type_changes_nothing_else() -> None:
    """A conversation that the fast decoder refuses is read by the tolerant one, which must see the same."""
    whole: dict[str, Any] = {
        "title": "T", "create_time": 5, "id": 7,
        "mapping": {
            "a": node("a", None, ["b"], metadata={HIDDEN: False}),
            "b": node("b", "a", ["c"], role="assistant", recipient="bio"),
            "c": node("c", "b", ["d"], role="system", metadata={USER_SYSTEM: True}),
            "d": node("d", "c", role="assistant", recipient="python"),
        },
        "current_node": "d",
    }  # fmt: skip
    right = read_one(whole)
    assert len(right.messages) == 3
    whole["mapping"]["broken"] = 7
    assert read_one(whole) == right
