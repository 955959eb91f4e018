"""An export as a file: ranged reads of something that must stay what it was when it was opened."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from typing import TYPE_CHECKING

from consumer.errors import FinalError, NotThereYet, Outage
from consumer.exports.stopping import Stop
from schemas.events import ErrorCode

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class ExportFile(io.RawIOBase):
    """A seekable, readable file. `size` is in bytes; `etag` tells its content apart from what replaces it.

    Once `stop` is set, every read raises ReadStopped.
    """

    def __init__(self, size: int, etag: str, stop: Stop | None = None) -> None:
        super().__init__()
        self.size = size
        self.etag = etag
        self.stop = stop or Stop()
        self._position = 0

    @abstractmethod
    def read_range(self, start: int, size: int) -> bytes:
        """At most `size` bytes from `start` on, at least one; `start` is inside the file.

        Raises:
            RunError: as `ExportStore.open`.
        """

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError("expected a position inside the file")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with memoryview(buffer).cast("B") as view:
            wanted = min(len(view), self.size - self._position)
            if wanted <= 0:
                return 0
            self.stop.check()
            data = self.read_range(self._position, wanted)
            view[: len(data)] = data
        self._position += len(data)
        return len(data)


def replaced() -> Outage:
    """The error of a file that isn't any more what it was when it was opened: the run reads the new one, later."""
    return Outage(ErrorCode.EXPORT_UNAVAILABLE, "The export was replaced while it was read; it is read again from the start.")


def not_there(hint: str = "") -> NotThereYet:
    """The error of a `storage_path` where nothing lies; `hint` is what an operator may want to look at."""
    return NotThereYet(ErrorCode.EXPORT_NOT_FOUND, f"There is no object at the storage_path of the event{hint or '.'}")


def unavailable(why: str) -> FinalError:
    """The error of one object that the store refuses."""
    return FinalError(ErrorCode.EXPORT_UNAVAILABLE, f"The store refuses the export: {why}.")
