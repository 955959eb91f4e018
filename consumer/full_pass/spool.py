"""The chunks of a run between reading and saving, in an anonymous temporary file that dies with its process."""

from __future__ import annotations

import tempfile
import threading
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
        self._packed = bytearray(_LENGTH_BYTES)
        self._decoder = msgspec.msgpack.Decoder(Chunk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Giving a gigabyte back to the file system takes a second, and this is the event loop's thread.
        threading.Thread(target=self._file.close, name="spool", daemon=True).start()

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write at the end. Blocking, and not to be mixed with `batches`."""
        for chunk in chunks:
            self._encoder.encode_into(chunk, self._packed, _LENGTH_BYTES)
            self._packed[:_LENGTH_BYTES] = (len(self._packed) - _LENGTH_BYTES).to_bytes(_LENGTH_BYTES, "big")
            self._file.write(self._packed)

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
