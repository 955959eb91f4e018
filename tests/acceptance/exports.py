"""Small exports of the tests' own making, in the format of ChatGPT, and the sections of a quick pass."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

V1_SECTIONS = {
    name: json.dumps({"note": f"the quick pass said this of {name} – früher"}, ensure_ascii=False)
    for name in ("soul", "identity", "user", "agents", "tools")
}


def conversation(title: str, *turns: str, at: str | None = "2026-10-01T09:00:00+00:00", name: str = "") -> dict[str, Any]:
    """A conversation whose turns are the user's and the assistant's in turn."""
    nodes: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    last = "root"
    for number, text in enumerate(turns):
        node = f"node-{number}"
        message = {"author": {"role": ("user", "assistant")[number % 2]}, "content": {"content_type": "text", "parts": [text]}}
        nodes[node] = {"id": node, "message": message, "parent": last, "children": []}
        nodes[last]["children"].append(node)
        last = node
    found = {"id": name or f"id of {title}", "title": title, "mapping": nodes, "current_node": last}
    return found if at is None else {**found, "create_time": datetime.fromisoformat(at).timestamp()}


def a_small_export(word: str = "pottery") -> list[dict[str, Any]]:
    """Three conversations, each large enough for a facts request of its own where tokens per call are few.

    `word` stands in everything that the user says, so a test can tell its own requests from others'.
    """
    return [
        conversation(
            f"Plans with {word}",
            f"I'm building a {word} studio in the old barn. I decided to buy the {word} kiln because firing elsewhere is dear.",
            "A kiln of one's own is a big step.",
            f"My {word} exam is on 12 March 2027. Please never tell me that {word} is easy.",
            "Noted.",
            at="2026-03-05T18:30:00+00:00",
        ),
        conversation(
            f"Why {word} matters",
            f"I believe that {word} should be taught in schools. It matters to me that {word} stays slow.",
            "Many teachers would agree.",
            f"I prefer short answers about {word}. Call me Ada.",
            "All right, Ada.",
            at="2026-09-12T07:15:00+00:00",
        ),
        conversation(
            f"Quick {word} question",
            f"How hot is a {word} kiln at cone 6?",
            "About 1,222 °C.",
            at="2025-01-20T21:05:00+00:00",
        ),
    ]
