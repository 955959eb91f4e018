"""How much of an export is read (specification 1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """What an export may have; beyond is `export_too_large`. `max_bytes` is its size as it lies in the store."""

    max_bytes: int
    max_uncompressed_bytes: int
    max_compression_ratio: int
    max_conversations: int
