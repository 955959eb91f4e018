"""gzip, whole and damaged (specification 1)."""

from __future__ import annotations

import gzip
import time
import zlib

from schemas.events import ErrorCode
from tests.unit.exports.test_formats import _fails, _json, _said


def test_gzip_is_known_by_its_first_bytes() -> None:
    assert _said(gzip.compress(_json("a", "b"))) == ["a", "b"]
    assert _said(gzip.compress(b"\xef\xbb\xbf" + _json("a"))) == ["a"]


def test_gzip_of_several_members_and_with_zeros_behind_is_one_file() -> None:
    content = _json("a", "b")
    assert _said(gzip.compress(content[:10]) + gzip.compress(content[10:]) + b"\0" * 100) == ["a", "b"]


def test_gzip_that_is_cut_off_anywhere_is_unreadable() -> None:
    content = gzip.compress(_json("a", "b"))
    for end in range(2, len(content)):
        _fails(content[:end])


def test_gzip_that_is_damaged_or_goes_on_is_unreadable() -> None:
    content = gzip.compress(_json("a", "b"))
    _fails(content + b"more")
    _fails(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    _fails(content + gzip.compress(b"]"))
    _fails(gzip.compress(b""))
    _fails(gzip.compress(gzip.compress(_json("a"))))


def test_every_part_of_the_trailer_and_the_header_is_checked() -> None:
    content = gzip.compress(_json("a", "b"))
    for place in (0, 1, 2, *range(len(content) - 8, len(content))):
        _fails(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])


def test_what_stands_behind_the_end_is_told_from_damage() -> None:
    content = gzip.compress(_json("a"))
    assert "behind its end" in _fails(content + b"more").detail
    assert "behind its end" in _fails(content + bytes(2_000_000) + b"more").detail
    assert "cut off" in _fails(content[:-1]).detail
    assert "damaged" in _fails(content[:-8] + bytes(8)).detail


def test_members_may_be_of_any_number_and_hold_anything_or_nothing() -> None:
    content = _json("a", "é" * 100, "b" * 3_000_000)
    small = b"".join(gzip.compress(content[at : at + 1]) + gzip.compress(b"") for at in range(300))
    assert _said(small + gzip.compress(content[300:]) + gzip.compress(b"") * 100) == ["a", "é" * 100, "b" * 5_001]


def test_members_of_nothing_take_no_longer_where_there_are_many() -> None:
    """Each could make all that was read ahead be copied: hours, for a file of the largest size."""

    def seconds(members: int, times: int) -> float:
        content = gzip.compress(b"") * members
        started = time.process_time()
        for _ in range(times):
            _fails(content)
        return time.process_time() - started

    assert min(seconds(50_000, 1) for _ in range(2)) < 4 * seconds(50, 1_000)


def test_a_bomb_of_many_members_is_too_large_by_what_all_of_them_unpack_to() -> None:
    packer = zlib.compressobj(9, wbits=31)
    member = packer.compress(b" " * 1_000_000) + packer.flush()
    _fails(b"".join([gzip.compress(b"["), *[member] * 10]), ErrorCode.EXPORT_TOO_LARGE, max_compression_ratio=200)
    _fails(b"".join([gzip.compress(b"["), *[member] * 10]), ErrorCode.EXPORT_TOO_LARGE, max_uncompressed_bytes=5_000_000)


def test_a_megabyte_that_unpacks_to_a_gigabyte_is_not_unpacked() -> None:
    """What stands behind the limit is damaged: it would be unreadable if it were looked at."""
    packer = zlib.compressobj(9, wbits=31)
    member = packer.compress(b"[" + b" " * 20_000_000) + packer.flush(zlib.Z_FULL_FLUSH)
    _fails(member + b"damage", ErrorCode.EXPORT_TOO_LARGE, max_uncompressed_bytes=10_000_000)
