"""ZIP archives that no tool would write, record by record."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

ENCRYPTED, STREAMED, UTF_8 = 0x1, 0x8, 0x800


@dataclass(frozen=True)
class Member:
    """A member: `data` is its content, `method` how it is packed. What is None is as it should be."""

    name: bytes
    data: bytes = b""
    method: int = 8
    flags: int = 0
    packed: bytes | None = None
    packed_size: int | None = None
    size: int | None = None
    extra: bytes = b""
    external_attr: int = 0
    volume: int = 0
    offset: int | None = None

    @property
    def body(self) -> bytes:
        """What stands behind the local header."""
        return self.data if self.packed is None and self.method != 8 else self.packed or deflated(self.data)

    def header(self) -> bytes:
        """The local header, with the name and the extra field."""
        sizes = (0, 0, 0) if self.flags & STREAMED else self._sizes()
        fixed = struct.pack("<4s5H3I2H", b"PK\3\4", 20, self.flags, self.method, 0, 33, *sizes, len(self.name), len(self.extra))
        return fixed + self.name + self.extra

    def entry(self, offset: int) -> bytes:
        """The record of the directory."""
        numbers = (20, 20, self.flags, self.method, 0, 33, *self._sizes(), len(self.name), 0, 0, self.volume, 0)
        place = offset if self.offset is None else self.offset
        return struct.pack("<4s6H3I5H2I", b"PK\1\2", *numbers, self.external_attr, place) + self.name

    def _sizes(self) -> tuple[int, int, int]:
        packed_size = len(self.body) if self.packed_size is None else self.packed_size
        return zlib.crc32(self.data), packed_size, len(self.data) if self.size is None else self.size


def deflated(data: bytes) -> bytes:
    """The bytes as they stand in an archive."""
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush()


def raw_zip(*members: Member, disk: int = 0) -> bytes:
    """The archive of these members."""
    content, directory = b"", b""
    for member in members:
        directory += member.entry(len(content))
        content += member.header() + member.body
        if member.flags & STREAMED:
            content += struct.pack("<4s3I", b"PK\7\x08", zlib.crc32(member.data), len(member.body), len(member.data))
    return archive(content, directory, len(members), disk)


def archive(content: bytes, directory: bytes, count: int, disk: int = 0) -> bytes:
    """Members and directory, with the record behind that ends an archive."""
    end = struct.pack("<4s4H2IH", b"PK\5\6", disk, disk, count & 0xFFFF, count & 0xFFFF, len(directory), len(content), 0)
    return content + directory + end


def sharing_one_kernel(names: list[bytes], kernel: bytes) -> bytes:
    """Members that all unpack to the same bytes, which are in the archive once.

    The extra field of each one's header covers the headers that follow (Fifield, "A better zip bomb", 2019).
    """
    headers: list[bytes] = []
    for name in reversed(names):
        covered = b"".join(headers)
        extra = struct.pack("<2H", 0xFAFA, len(covered)) + covered if covered else b""
        headers.insert(0, Member(name, kernel, extra=extra).header()[: 30 + len(name) + (4 if covered else 0)])
    offsets = [sum(map(len, headers[:place])) for place in range(len(names))]
    content = b"".join(headers) + deflated(kernel)
    directory = b"".join(Member(name, kernel).entry(offset) for name, offset in zip(names, offsets, strict=True))
    return archive(content, directory, len(names))


def quoting_the_next_header(names: list[bytes], kernel: bytes) -> bytes:
    """Members each of which unpacks to the header of the next one, quoted in a stored block, and all that follows it."""
    members = [Member(names[-1], kernel)]
    for name in reversed(names[:-1]):
        following = members[0]
        header, size = following.header(), len(following.header())
        quoted = struct.pack("<B2H", 0, size, size ^ 0xFFFF) + header
        members.insert(0, Member(name, header + following.data, packed=quoted + following.body))
    offset, directory = 0, b""
    for member in members:
        directory += member.entry(offset)
        offset += len(member.header()) + 5  # the stored block's own header
    return archive(members[0].header() + members[0].body, directory, len(members))
