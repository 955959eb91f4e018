"""Files that were exports once, made from the project's sample: changed value by value and byte by byte."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

from sandbox.sample import sample_export

_SMALL_CHARS = 6_000
_TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b'\\"', b"},{", b"}, {", b"]}", b'},{"title"', b'":'),
    *(
        b"\\u0000",
        b"\\ud83d",
        b"\0",
        b"\x01",
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
        b" ",
        b"\n",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5_000,
    ),
    *(b"tru", b"//", b"null", b'{"mapping":', b'"conversations":[', b"[" * 2_000, b'{"a":' * 2_000, b"<html>", b"\x1f\x8b\x08\0"),
    *(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"\xff\xff\xff\xff", b"\xff\xff", b"\0\0\0\0", b"\x01\0\0\0"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, 10**30, float("nan"), "", " ", "\0", "\ud800", "é" * 50, "x" * 9_000, [], {}, [[]], [None]),
    *({"mapping": {}}, {"parts": ["a", 1, {"text": "b"}]}, {"role": "user"}, "user"),
    *("all", "root", ["root"], "2024-13-99", "1e9"),
)


@cache
def samples() -> tuple[str, ...]:
    """The sample's small conversations as JSON, the odd ones among them."""
    texts = [json.dumps(element) for element in sample_export()]
    return tuple(text for text in texts if len(text) < _SMALL_CHARS)


def made_file(draw: random.Random) -> bytes:
    """A file that was an export once."""
    elements = [json.loads(draw.choice(samples())) for _ in range(draw.randint(0, 4))]
    if elements and draw.random() < 0.5:
        for _ in range(draw.randint(1, 4)):
            _change_a_value(elements, draw)
    text = _changed(_as_json(elements, draw), draw, 0.6)
    return _changed(draw.choice(_PACKED)(text, draw), draw, 0.3)


def _as_json(elements: list[Any], draw: random.Random) -> bytes:
    document: Any = elements
    if draw.random() < 0.3:
        document = {"user": {}, "conversations": elements, "more": [{}, {}]}
    elif elements and draw.random() < 0.2:
        document = elements[0]
    indent = draw.choice([None, None, 0, 1])
    separators = draw.choice([None, (",", ":"), (" ,\n", " : ")])
    text = json.dumps(document, indent=indent, separators=separators, ensure_ascii=draw.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def _change_a_value(root: Any, draw: random.Random) -> None:
    """Walk down to some place and put something else there, take it away, or put it there twice."""
    at = root
    for _ in range(draw.randint(0, 8)):
        places = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not places:
            return
        place = draw.choice(places)
        if draw.random() < 0.7 and isinstance(at[place], dict | list):
            at = at[place]
            continue
        if draw.random() < 0.3:
            del at[place]
        elif draw.random() < 0.3 and isinstance(at, list):
            at.insert(draw.randint(0, len(at)), copy.deepcopy(at[place]))
        else:
            at[place] = copy.deepcopy(draw.choice(_VALUES))
        return


def _changed(data: bytes, draw: random.Random, chance: float) -> bytes:
    if draw.random() > chance:
        return data
    for _ in range(draw.choice([1, 1, 1, 2, 4, 16])):
        data = draw.choice(_CHANGES)(data, draw.randint(0, len(data)), draw)
    return data


def _span(at: int, draw: random.Random) -> int:
    return at + draw.choice([1, 1, 2, 4, 30, 1_000])


_CHANGES: tuple[Callable[[bytes, int, random.Random], bytes], ...] = (
    lambda data, at, draw: data[:at],
    lambda data, at, draw: data[:at] + data[_span(at, draw) :],
    lambda data, at, draw: data[:at] + draw.choice(_TOKENS) + data[at:],
    lambda data, at, draw: (data[:at] + (token := draw.choice(_TOKENS)) + data[at + len(token) :])[: max(len(data), at)],
    lambda data, at, draw: data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :] if at < len(data) else data,
    lambda data, at, draw: data[:at] + data[at : _span(at, draw)] * draw.choice([2, 3, 50]) + data[at:],
    lambda data, at, draw: data[:at] + data[draw.randint(0, len(data)) :],
    lambda data, at, draw: data + data[at:],
)


def _gzip(data: bytes, draw: random.Random) -> bytes:
    return in_small_pieces(data, draw) if draw.random() < 0.5 else gzip.compress(data) + b"\0" * draw.choice([0, 0, 7])


def in_small_pieces(data: bytes, draw: random.Random) -> bytes:
    """The same as gzip of members of a few bytes each, which reach the reader one by one."""
    size = draw.choice([1, 2, 3, 7, 40, 400]) if len(data) < 5_000 else draw.choice([40, 400])
    return b"".join(gzip.compress(data[at : at + size], 0) for at in range(0, len(data), size)) or gzip.compress(b"")


def _zip(data: bytes, draw: random.Random) -> bytes:
    buffer = io.BytesIO()
    method = draw.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("chat.html", b"<html>")
        if draw.random() < 0.5:
            with archive.open("x/conversations.json", "w", force_zip64=draw.random() < 0.5) as member:
                member.write(data)
        else:
            for number in range(draw.randint(1, 4)):
                archive.writestr(f"conversations-{number:03}.json", data)
        archive.comment = draw.choice([b"", b"", b"comment", b"PK\x05\x06" * 6])
    return buffer.getvalue()


_PACKED: tuple[Callable[[bytes, random.Random], bytes], ...] = (lambda data, draw: data, lambda data, draw: data, _gzip, _zip)
