"""The chunks of a run between reading and saving, in an anonymous temporary file that dies with its process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, Self

import msgspec

from consumer.postgres.chunks import Chunk

BATCH_CHUNKS = 200
_LENGTH_BYTES = 4


class Spool:
    """Chunks in the order in which they were appended; memory is that of one batch. A context manager."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="full-pass-")  # noqa: SIM115  closed by __exit__
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Chunk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write at the end. Blocking, and not to be mixed with `batches`."""
        for chunk in chunks:
            packed = self._encoder.encode(chunk)
            self._file.write(len(packed).to_bytes(_LENGTH_BYTES, "big"))
            self._file.write(packed)

    def batches(self, size: int = BATCH_CHUNKS) -> Iterator[list[Chunk]]:
        """All chunks from the first one on, up to `size` at a time; never an empty list."""
        self._file.seek(0)
        batch: list[Chunk] = []
        while length := self._file.read(_LENGTH_BYTES):
            batch.append(self._decoder.decode(self._file.read(int.from_bytes(length, "big"))))
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
