"""Time and peak memory of reading an export, beside `json.load` and `ijson`: `python -m benchmarks.export`.

Every measurement is a process of its own on the same file, in the same run. "reading" is what the service does before its first
model call: split, decode, choose the visible messages, cut chunks into the spool, keep the 200 richest. `json.load` and `ijson`
are measured alone, and `json.load` once more with the same work behind it. Goal: at least 5 times as fast as `json.load` and the
same work, in memory that does not grow with the file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ijson
from rich.console import Console
from rich.table import Table

from consumer.exports.conversations import Conversation
from consumer.exports.limits import ExportLimits
from consumer.exports.messages import Message
from consumer.exports.store import ExportStore
from consumer.full_pass.chunks import to_chunks
from consumer.full_pass.reading import read_export
from consumer.full_pass.richest import Richest, format_block
from consumer.full_pass.spool import Spool
from consumer.metrics import Metrics
from sandbox.sample import sample_export, shapes

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NO_LIMITS = ExportLimits(10**12, 10**12, 10**6, 10**9)
_MEGABYTE = 1_000_000


def write_export(path: Path, megabytes: int) -> None:
    """The sample's conversations again and again, each with an id of its own, until the file is that large."""
    draw = random.Random(megabytes)
    odd = list(shapes().values())  # a careless reader, as the baseline is one, can't take them
    elements = [element for element in sample_export() if element not in odd]
    with path.open("w", encoding="ascii") as file:
        file.write("[")
        number = 0
        while file.tell() < megabytes * _MEGABYTE:
            element = as_exported({**draw.choice(elements), "id": f"conversation-{number}"})
            file.write(("," if number else "") + json.dumps(element))
            number += 1
        file.write("]")


def as_exported(conversation: dict[str, Any]) -> dict[str, Any]:
    """The conversation with all the fields that ChatGPT writes today, most of which nobody asks for."""
    nodes = {key: _with_every_field(key, node) for key, node in conversation.get("mapping", {}).items()}
    return {**conversation, "mapping": nodes, **_OF_A_CONVERSATION} if nodes else conversation


def _with_every_field(key: str, node: dict[str, Any]) -> dict[str, Any]:
    message = node.get("message")
    if not message:
        return node
    author = {"name": None, "metadata": {}, **message["author"]}
    return {
        **node,
        "message": {"id": key, **_OF_A_MESSAGE, **message, "author": author, "metadata": {**_METADATA, **message["metadata"]}},
    }


_OF_A_MESSAGE = {"update_time": None, "status": "finished_successfully", "end_turn": True, "weight": 1.0, "channel": None}
_METADATA = {
    "finish_details": {"type": "stop", "stop_tokens": [200002]},
    "is_complete": True,
    "citations": [],
    "content_references": [],
    "message_type": None,
    "model_slug": "gpt-4o",
    "default_model_slug": "gpt-4o",
    "parent_id": "3c1089b0-094b-40f7-8531-f81310de8a09",
    "request_id": "c95363eac55e1951-LHR",
    "timestamp_": "absolute",
}
_OF_A_CONVERSATION: dict[str, Any] = {
    "moderation_results": [],
    "plugin_ids": None,
    "conversation_template_id": None,
    "gizmo_id": None,
    "gizmo_type": None,
    "is_archived": False,
    "is_starred": None,
    "safe_urls": [],
    "blocked_urls": [],
    "default_model_slug": "auto",
    "conversation_origin": None,
    "voice": None,
    "async_status": None,
    "disabled_tool_ids": [],
}


def reading(path: Path) -> int:
    """The stage as a run has it."""
    store = ExportStore.from_url(path.parent.parent.as_uri())
    storage_path = f"{path.parent.name}/{path.name}"
    with Spool() as spool:
        return asyncio.run(read_export(storage_path, NOW, store, spool, NO_LIMITS, Metrics())).chunks


def json_load(path: Path) -> int:
    """The whole file at once."""
    with path.open("rb") as file:
        return len(json.load(file))


def ijson_items(path: Path) -> int:
    """A streaming parser, one conversation at a time, without any work on it."""
    with path.open("rb") as file:
        return sum(1 for _ in ijson.items(file, "item", use_float=True))


def json_load_and_work(path: Path) -> int:
    """The whole file at once, and then the work of the stage: the plain way to write it."""
    with path.open("rb") as file:
        whole: list[dict[str, Any]] = json.load(file)
    richest, chunks = Richest(), 0
    with Spool() as spool:
        for index, element in enumerate(whole):
            messages = tuple(_visible(element))
            if messages:
                conversation = Conversation(index, element["id"], str(element["title"]), _time(element), messages)
                found = to_chunks(conversation, NOW)
                spool.append(found)
                richest.offer(conversation)
                chunks += len(found)
        format_block(richest.chosen())
    return chunks


def _time(element: dict[str, Any]) -> float | None:
    time = element.get("create_time")
    return float(time) if isinstance(time, float | int) else None


def _visible(element: dict[str, Any]) -> Iterator[Message]:
    """The path to the current node, without any of the care that real exports need."""
    mapping, at = element["mapping"], element.get("current_node")
    path: list[Any] = []
    while at in mapping and len(path) <= len(mapping):
        path.append(mapping[at].get("message"))
        at = mapping[at].get("parent")
    for message in reversed(path):
        if not isinstance(message, dict):
            continue
        role = (message.get("author") or {}).get("role")
        parts = (message.get("content") or {}).get("parts") or []
        text = "\n".join(part for part in parts if isinstance(part, str))
        if role in {"user", "assistant"} and text.strip():
            yield Message(role, text)


MEASURED: dict[str, Callable[[Path], int]] = {
    "reading": reading,
    "json.load": json_load,
    "json.load and the same work": json_load_and_work,
    "ijson": ijson_items,
}


def measure(name: str, path: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of one process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.export", "--one", name, "--path", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes = done.stdout.split()
    return float(seconds), float(megabytes)


def run_one(name: str, path: Path) -> None:
    """Measure in this process and print."""
    began = time.perf_counter()
    MEASURED[name](path)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MEGABYTE if sys.platform == "darwin" else 1000)
    sys.stdout.write(f"{seconds} {peak}\n")


def main() -> None:
    """Run all sizes and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    arguments.add_argument("--one", choices=MEASURED, help=argparse.SUPPRESS)
    arguments.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        run_one(given.one, given.path)
        return
    table = Table("MB", "measured", "seconds", "peak MB", "times as slow as reading")
    with tempfile.TemporaryDirectory(prefix="full-pass-benchmark-") as folder:
        (Path(folder) / "exports").mkdir()
        for megabytes in given.megabytes:
            path = Path(folder) / "exports" / "conversations.json"
            write_export(path, megabytes)
            results = {name: measure(name, path) for name in MEASURED}
            for name, (seconds, peak) in results.items():
                ratio = f"{seconds / results['reading'][0]:.1f}"
                table.add_row(str(megabytes), name, f"{seconds:.2f}", f"{peak:.0f}", ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
