"""Every message shape of specification 2 is in the sample, so that the demo and the end-to-end tests meet each of them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from sandbox import sample


@cache
def export() -> tuple[Any, ...]:
    return tuple(sample.sample_export())


def elements() -> list[dict[str, Any]]:
    return [element for element in export() if isinstance(element, dict)]


def nodes(element: dict[str, Any]) -> dict[str, Any]:
    return {key: node for key, node in element.get("mapping", {}).items() if isinstance(node, dict)}


def messages() -> Iterator[dict[str, Any]]:
    for element in elements():
        yield from (node["message"] for node in nodes(element).values() if isinstance(node.get("message"), dict))


def content_types() -> set[str]:
    return {content["content_type"] for content in contents() if isinstance(content, dict)}


def contents() -> list[Any]:
    return [message.get("content") for message in messages()]


def flagged(flag: str) -> list[dict[str, Any]]:
    found = [(message, message.get("metadata")) for message in messages()]
    return [message for message, metadata in found if isinstance(metadata, dict) and metadata.get(flag) is True]


def parts() -> list[Any]:
    return [part for content in contents() if isinstance(content, dict) for part in content.get("parts", [])]


def walk_from_current_node_ends(element: dict[str, Any]) -> str:
    """How the way up from `current_node` ends: root, missing (a parent that isn't there), cycle, or absent (no such node)."""
    tree, node_id, seen = nodes(element), element.get("current_node"), set()
    if node_id not in tree:
        return "absent" if node_id else "none"
    while node_id in tree:
        if node_id in seen:
            return "cycle"
        seen.add(node_id)
        node_id = tree[node_id].get("parent")
    return "root" if node_id is None else "missing"


def sibling_roles(element: dict[str, Any]) -> list[set[str]]:
    """For every node with several children, the roles of these."""
    tree = nodes(element)
    families = [node["children"] for node in tree.values() if isinstance(node.get("children"), list)]
    return [
        {tree[child]["message"]["author"]["role"] for child in children}
        for children in families
        if len(children) > 1 and all(child in tree for child in children)
    ]


SHAPES: dict[str, Callable[[], bool]] = {
    "a hidden, empty system message": lambda: any(
        m["author"]["role"] == "system" for m in flagged("is_visually_hidden_from_conversation")
    ),
    "a hidden message of the user": lambda: any(
        m["author"]["role"] == "user" and m["content"]["content_type"] == "text"
        for m in flagged("is_visually_hidden_from_conversation")
    ),
    "a visible user system message": lambda: any(
        m["author"]["role"] == "system" and "is_visually_hidden_from_conversation" not in m["metadata"]
        for m in flagged("is_user_system_message")
    ),
    "a tool's message": lambda: any(m.get("author") == {"role": "tool", "name": "python", "metadata": {}} for m in messages()),
    "an assistant that calls python, a browser, bio": lambda: (
        {"python", "browser", "bio"} <= {str(m.get("recipient")) for m in messages() if m.get("author") == {"role": "assistant"}}
    ),
    "every content type": lambda: (
        content_types()
        >= {
            "text",
            "code",
            "execution_output",
            "tether_quote",
            "tether_browsing_display",
            "thoughts",
            "reasoning_recap",
            "multimodal_text",
            "user_editable_context",
            "model_editable_context",
        }
    ),
    "an image, and a message of an image alone": lambda: any(
        isinstance(content, dict) and {str(p.get("content_type")) for p in content["parts"]} == {"image_asset_pointer"}
        for content in contents()
        if isinstance(content, dict) and content.get("parts") and all(isinstance(p, dict) for p in content["parts"])
    ),
    "a voice transcript": lambda: any(isinstance(p, dict) and p.get("content_type") == "audio_transcription" for p in parts()),
    "direct text": lambda: any(
        isinstance(content, dict) and content.get("content_type") == "text" and content.get("text") for content in contents()
    ),
    "plain string content": lambda: any(isinstance(content, str) for content in contents()),
    "an array as content": lambda: any(isinstance(content, list) for content in contents()),
    "parts of the wrong type": lambda: any(part is None or isinstance(part, int) for part in parts()),
    "white space only": lambda: any(isinstance(part, str) and part and not part.strip() for part in parts()),
    "a lone surrogate and U+0000": lambda: any(isinstance(p, str) and "\ud83d" in p and "\0" in p for p in parts()),
    "an edited question": lambda: any("user" in roles for element in elements() for roles in sibling_roles(element)),
    "a regenerated answer": lambda: any("assistant" in roles for element in elements() for roles in sibling_roles(element)),
    "a current node on a branch that isn't the last": lambda: any(
        isinstance(e.get("current_node"), str)
        and any(
            len(node.get("children") or []) > 1 and nodes(e)[e["current_node"]].get("parent") in node["children"][:-1]
            for node in nodes(e).values()
        )
        for e in elements()
        if e.get("current_node") in nodes(e)
    ),
    "no current node beside branches": lambda: any("current_node" not in e and sibling_roles(e) for e in elements()),
    "a dangling current node": lambda: any(walk_from_current_node_ends(e) == "absent" for e in elements()),
    "a cycle": lambda: any(walk_from_current_node_ends(e) == "cycle" for e in elements()),
    "a missing parent": lambda: any(walk_from_current_node_ends(e) == "missing" for e in elements()),
    "a root alone": lambda: any(
        len(nodes(e)) == 1 and all(node["message"] is None for node in nodes(e).values()) for e in elements()
    ),
    "no links at all": lambda: any(
        nodes(e) and all("parent" not in node and "children" not in node for node in nodes(e).values()) for e in elements()
    ),
    "parents without children": lambda: any(
        nodes(e) and all("children" not in n for n in nodes(e).values()) and any(n.get("parent") for n in nodes(e).values())
        for e in elements()
    ),
    "a node and a message that are malformed": lambda: any(
        any(not isinstance(node, dict) for node in e.get("mapping", {}).values())
        and any(isinstance(node.get("message"), list) for node in nodes(e).values())
        for e in elements()
    ),
    "a null title beside a name": lambda: any(e.get("title", "") is None and e.get("name") for e in elements()),
    "neither title, time nor id": lambda: any(
        e.get("title", "") is None and e.get("create_time", 0) is None and "id" not in e for e in elements()
    ),
    "a blank title": lambda: any(isinstance(e.get("title"), str) and not e["title"].strip() for e in elements()),
    "a time as a decimal string": lambda: any(re.fullmatch(r"[\d.]+", str(t)) for t in text_times()),
    "a time as an ISO string with a zone": lambda: any(re.search(r"T.*[+-]\d\d:\d\d$", t) for t in text_times()),
    "a time of zero": lambda: any(e.get("create_time") == 0 for e in elements()),
    "one id twice": lambda: 2 in Counter(e.get("id") for e in elements() if e.get("id")).values(),
    "elements that are no conversation": lambda: {str, type(None)} <= {type(e) for e in export()},
    "an object that is no conversation": lambda: any(e.get("mapping") == {} and e.get("messages") == [] for e in elements()),
    "an already simplified conversation": lambda: any(e.get("messages") and isinstance(e.get("id"), int) for e in elements()),
    "a conversation of Claude.ai": lambda: any(e.get("chat_messages") for e in elements()),
}


def text_times() -> list[str]:
    return [e[key] for e in elements() for key in ("create_time", "created_at", "createdAt") if isinstance(e.get(key), str)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_sample_holds_every_message_shape(shape: str) -> None:
    """A shape that is missing here is one that the demo and the end-to-end tests never meet (specification 2)."""
    assert SHAPES[shape]()
