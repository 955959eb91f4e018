"""The sample export: three years of one invented person, in the format that ChatGPT exports.

All content is data beside this file; nothing of it stands in code:

- `threads/*.md`: conversations written out, one file for each thread of the person's life, oldest first;
- `everyday/*.md`: short ones, one file for each half year;
- `shapes.json`: odd conversations as they are in an export, by the name of the shape that each one shows (specification 2);
- `quick_pass_profile.json`: the five sections as a quick pass left them;
- `user.json`, `chat.html`: what else lies in an export's ZIP.

In the Markdown files `=== 2024-05-18 09:30 | Title` (UTC) opens a conversation, and `User:` or `Assistant:` at the start of
a line opens a message. What stands above the first conversation says what the file is about, and is not exported.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

_HEADING = re.compile(r"^=== (\d{4}-\d\d-\d\d \d\d:\d\d) \| (.+)$", re.MULTILINE)
_SPEAKER = re.compile(r"^(User|Assistant):", re.MULTILINE)
_SECONDS_BETWEEN_MESSAGES = 75
# One fixed time for every member, so that the same sample is the same ZIP, byte for byte.
_ZIP_TIME = (2026, 11, 20, 12, 0, 0)


@dataclass(frozen=True)
class SampleInfo:
    """What was written: counts of conversations, the size, and the times (UTC) of the first and the last one.

    `last_at` is a good `completed_at` for the event that tells of this export: the newest conversations are recent then.
    """

    path: Path
    written: int
    everyday: int
    shapes: int
    size_bytes: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class Conversation:
    """One conversation of the Markdown files: `at` is UTC, messages are (role, text), as written."""

    title: str
    at: datetime
    messages: tuple[tuple[str, str], ...]


def build_sample(path: Path) -> SampleInfo:
    """Write the export: a JSON array, or, when the name ends in `.zip`, the ZIP that ChatGPT sends. The same bytes every time."""
    export = json.dumps(sample_export(), separators=(",", ":")).encode()
    if path.suffix == ".zip":
        _write_zip(path, export)
    else:
        path.write_bytes(export)
    written, everyday = conversations("threads"), conversations("everyday")
    times = [conversation.at for conversation in written + everyday]
    return SampleInfo(
        path=path,
        written=len(written),
        everyday=len(everyday),
        shapes=len(shapes()),
        size_bytes=path.stat().st_size,
        first_at=min(times),
        last_at=max(times),
    )


def sample_export() -> list[Any]:
    """The elements of the export, newest first as ChatGPT writes them; the odd ones without a plain time stand at the end."""
    plain = [_to_export(conversation) for folder in ("threads", "everyday") for conversation in conversations(folder)]
    return sorted([*plain, *shapes().values()], key=_time, reverse=True)


def conversations(folder: str) -> list[Conversation]:
    """The conversations of `threads` or `everyday`, in the order of the files and of their lines.

    Raises ValueError where a conversation has no message, with its title.
    """
    return [
        conversation
        for file in sorted(_data(folder).iterdir(), key=lambda entry: entry.name)
        for conversation in _parsed(file.read_text(encoding="utf-8"))
    ]


def shapes() -> dict[str, Any]:
    """The odd elements of the export by the name of the shape; not all are conversations."""
    return dict(json.loads(_data("shapes.json").read_text(encoding="utf-8")))


def quick_pass_sections() -> dict[str, str]:
    """The five v1 sections as a quick pass left them: section name to JSON text (specification 7 and 9)."""
    profile = json.loads(_data("quick_pass_profile.json").read_text(encoding="utf-8"))
    return {name: json.dumps(section, ensure_ascii=False) for name, section in profile.items()}


def _data(name: str) -> Traversable:
    return files(__name__) / name


def _parsed(text: str) -> Iterator[Conversation]:
    _, *fields = _HEADING.split(text)
    for time, title, body in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        _, *turns = _SPEAKER.split(body)
        if not turns:
            raise ValueError(f"expected a line that starts with User: or Assistant: below {title!r}, found none")
        yield Conversation(
            title=title,
            at=datetime.strptime(time, "%Y-%m-%d %H:%M").replace(tzinfo=UTC),
            messages=tuple((role.lower(), said.strip()) for role, said in zip(turns[::2], turns[1::2], strict=True)),
        )


def _to_export(conversation: Conversation) -> dict[str, Any]:
    # Fields that no reader of ours looks at are left out; `shapes.json` has elements with more of what ChatGPT writes.
    conversation_id = str(uuid5(NAMESPACE_URL, f"{conversation.at.isoformat()} {conversation.title}"))
    start = conversation.at.timestamp()
    messages: list[dict[str, Any] | None] = [None]  # ChatGPT's trees start with a root that says nothing
    for position, (role, text) in enumerate(conversation.messages):
        messages.append(_message(role, text, start + position * _SECONDS_BETWEEN_MESSAGES))
    ids = [str(uuid5(NAMESPACE_URL, f"{conversation_id} {position}")) for position in range(len(messages))]
    mapping = {
        node_id: {
            "id": node_id,
            "message": message,
            "parent": ids[position - 1] if position else None,
            "children": ids[position + 1 : position + 2],
        }
        for position, (node_id, message) in enumerate(zip(ids, messages, strict=True))
    }
    return {
        "title": conversation.title,
        "create_time": start,
        "update_time": start + (len(conversation.messages) - 1) * _SECONDS_BETWEEN_MESSAGES,
        "mapping": mapping,
        "current_node": ids[-1],
        "conversation_id": conversation_id,
        "id": conversation_id,
    }


def _message(role: str, text: str, time: float) -> dict[str, Any]:
    return {
        "author": {"role": role},
        "create_time": time,
        "content": {"content_type": "text", "parts": [text]},
        "metadata": {},
        "recipient": "all",
    }


def _time(element: Any) -> float:
    time = element.get("create_time") if isinstance(element, dict) else None
    return float(time) if isinstance(time, int | float) else 0.0


def _write_zip(path: Path, export: bytes) -> None:
    members = {
        "chat.html": _data("chat.html").read_bytes(),
        "conversations.json": export,
        "message_feedback.json": b"[]",
        "shared_conversations.json": b"[]",
        "user.json": _data("user.json").read_bytes(),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), content, zipfile.ZIP_DEFLATED)
