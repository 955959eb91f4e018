"""The fence around everything that a user's export put into a request (specification 4).

::

    <conversation-5d0f2a9c41be date="2025-03-14" title="Week in Lisbon">
    … the conversation, byte for byte …
    </conversation-5d0f2a9c41be>

The code in the tags is derived from what the request fences, so the same data always makes the same request (and its recorded
answer is found again), and it occurs nowhere in that data: no text can contain the tag that would end its own fence,
or a neighbour's. Escaping would have to change what people wrote; a random code would make every request new.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable

CODE_CHARS = 12
TITLE_MAX_CHARS = 200


def code_for(data: Iterable[str]) -> str:
    """A code of 12 hexadecimal digits that follows from the texts and occurs in none of them.

    Look-alikes count as occurring (full-width digits, capitals): the model may read them as the same.
    """
    texts = list(data)
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    seen = [unicodedata.normalize("NFKC", text).casefold() for text in texts]
    while any(_code(digest) in text for text in seen):
        digest.update(b"again")
    return _code(digest)


def _code(digest: hashlib._Hash) -> str:
    return digest.hexdigest()[:CODE_CHARS]


def fenced(kind: str, code: str, text: str, **attributes: str) -> str:
    """The text between its two tags, each on a line of its own. Attributes are data too: quoted, on one line, bounded."""
    quoted = "".join(f" {name}={quoted_line(value)}" for name, value in attributes.items())
    return f"<{kind}-{code}{quoted}>\n{text}\n</{kind}-{code}>"


def quoted_line(value: str) -> str:
    """The value as a JSON string of one line and at most 200 characters."""
    line = " ".join(value[: 2 * TITLE_MAX_CHARS].split())
    return json.dumps(line[:TITLE_MAX_CHARS], ensure_ascii=False)
