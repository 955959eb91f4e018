"""Files that were made to fill the memory, read where there is little of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from consumer.exports.splitting import MAX_CONVERSATION_BYTES
from tests.integration.exports.hostile import FILES

ENDINGS = {
    "nesting that isn't closed": "export_unreadable",
    "members that share one kernel": "export_unreadable",
    "gzip of gzip": "export_too_large",
    "gzip that unpacks to 200 times its size": "export_too_large",
} | {name: "export_too_large" for name in FILES if "never" in name}
MOST_BYTES = dict.fromkeys(FILES, 32_000_000) | {
    **{name: MAX_CONVERSATION_BYTES + 16_000_000 for name in FILES if "never" in name},
    "150,000 members": 100_000_000,  # its directory of almost 8 MiB, as the standard library holds it
}


@pytest.mark.guarantee("G10")
def test_no_file_takes_more_memory_than_one_conversation_may_have() -> None:
    """A worker that one user's file can kill takes everybody's runs with it, again and again."""
    command = [sys.executable, "-m", "tests.integration.exports.hostile"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True).stdout
    seen = [json.loads(line) for line in output.splitlines()]
    assert [(name, ending) for name, ending, *_ in seen] == [(name, ENDINGS.get(name, "read")) for name in FILES]
    assert {name: grown for name, _, grown, _ in seen if grown > MOST_BYTES[name]} == {}
