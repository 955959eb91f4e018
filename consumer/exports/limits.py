"""How much of an export is read (specification 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from consumer.errors import FinalError
from schemas.events import ErrorCode

PIECE_BYTES = 1024 * 1024
"""Most that is read, unpacked or searched in one call into C: so long the worker's event loop stands still."""


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """What an export may have; beyond is `export_too_large`. `max_bytes` is its size as it lies in the store."""

    max_bytes: int
    max_uncompressed_bytes: int
    max_compression_ratio: int
    max_conversations: int


def too_large(what: str) -> FinalError:
    """The error of an export beyond a limit; `what` names the limit, and its setting if there is one."""
    return FinalError(ErrorCode.EXPORT_TOO_LARGE, f"The export is too large: {what}.")


class Meter:
    """Counts what was unpacked, of all documents together, and stops at the limits while it is being unpacked."""

    def __init__(self, packed_bytes: int, limits: ExportLimits) -> None:
        self._limits = limits
        self._most_by_ratio = limits.max_compression_ratio * packed_bytes
        self._unpacked_bytes = 0

    def pass_on(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces, up to a limit.

        Raises:
            FinalError: `export_too_large`.
        """
        for piece in pieces:
            self._unpacked_bytes += len(piece)
            if self._unpacked_bytes > self._limits.max_uncompressed_bytes:
                most = self._limits.max_uncompressed_bytes
                raise too_large(
                    f"it unpacks to more than the {most} bytes that are read (FULL_PASS_MAX_EXPORT_UNCOMPRESSED_BYTES)"
                )
            if self._unpacked_bytes > self._most_by_ratio:
                most = self._limits.max_compression_ratio
                raise too_large(f"it unpacks to more than {most} times its size (FULL_PASS_MAX_COMPRESSION_RATIO)")
            yield piece
