"""Exports of other people's making, read where they lie: in `shared/exports` beside the checkout, if that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.exports.conversations import Conversation, read_conversations
from consumer.exports.limits import ExportLimits
from consumer.exports.store import ExportStore

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "exports"
LIMITS = ExportLimits(10_000_000, 10_000_000, 10, 1_000)

# Conversations with a visible message and their visible messages, counted by reading the files.
KNOWN: dict[str, tuple[int, int]] = {
    "byegpt__sample_conversations.json": (2, 7),
    "librechat__chatgpt-tree.json": (1, 6),
    "openwebui-importer__claude_thinking_example.json": (1, 2),
    "openwebui-importer__gpt_example.json": (1, 10),
}


SAMPLES = sorted(FOLDER.glob("*.json"))

if SAMPLES:  # without them there is nothing to test, and nothing that was skipped

    @pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
    def test_a_genuine_export_is_read(path: Path) -> None:
        store = ExportStore.from_url(FOLDER.parent.as_uri())
        with store.open(f"exports/{path.name}") as file:
            read = list(read_conversations(file, LIMITS))
        conversations = [each for each in read if isinstance(each, Conversation) and each.messages]
        assert conversations
        counts = (len(conversations), sum(len(each.messages) for each in conversations))
        assert counts == KNOWN.get(path.name, counts)
