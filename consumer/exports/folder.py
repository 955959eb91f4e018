"""Exports in a folder: `file:///data` reads `/data/bucket/key`."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from consumer.errors import OperatorTrouble, Outage, RunError
from consumer.exports.file import ExportFile, not_there, replaced, unavailable
from consumer.exports.stopping import Stop
from schemas.events import ErrorCode

_NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_REFUSED = {errno.EACCES, errno.EPERM}


class Folder:
    """The folder. Links are followed inside it, and refused as `export_unavailable` where they lead out of it."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def open(self, bucket: str, key: str, stop: Stop) -> ExportFile:
        """See `ExportStore.open`."""
        self._require_root()
        try:
            root = self._root.resolve(strict=True)
            path = (root / bucket / key).resolve(strict=True)
            if not path.is_relative_to(root):
                raise unavailable("it is a link that leads out of the folder of EXPORT_STORE_URL")
            return _open(path, stop)
        except OSError as error:
            raise self._error(error.errno, bucket) from None
        except (RuntimeError, ValueError):  # a loop of links; a character that no file name has
            raise not_there() from None

    def _require_root(self) -> None:
        if not self._root.is_dir() or not os.access(self._root, os.R_OK | os.X_OK):
            raise OperatorTrouble(
                ErrorCode.EXPORT_UNAVAILABLE, "The folder of EXPORT_STORE_URL is not there, or can't be read: mount or make it."
            )

    def _error(self, number: int | None, bucket: str) -> RunError:
        """Whether a file that can't be opened is the only one, or the whole store is away."""
        if number in _NO_SUCH_FILE:
            return not_there("" if any(self._root.iterdir()) else ", and none in the whole store: is its folder mounted?")
        if number not in _REFUSED:
            return _failing(number)
        if os.access(self._root / bucket, os.X_OK):
            return unavailable("its file can't be read by the user that the worker runs as")
        return OperatorTrouble(
            ErrorCode.EXPORT_UNAVAILABLE,
            "The bucket's folder below EXPORT_STORE_URL can't be read: give the worker access.",
        )


def _open(path: Path, stop: Stop) -> ExportFile:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise not_there() if stat.S_ISDIR(status.st_mode) else unavailable("it is no regular file")
    return _LocalFile(descriptor, status, stop)


class _LocalFile(ExportFile):
    """Stays with the file that it opened, also when another one takes its name; notices when it is written to."""

    def __init__(self, descriptor: int, status: os.stat_result, stop: Stop) -> None:
        super().__init__(status.st_size, _etag(status), stop)
        self._descriptor = descriptor

    def read_range(self, start: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, start)
            unchanged = _etag(os.fstat(self._descriptor)) == self.etag
        except OSError as error:
            raise _failing(error.errno) from None
        if not data or not unchanged:
            raise replaced()
        return data

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _etag(status: os.stat_result) -> str:
    return f"{status.st_dev:x}-{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _failing(number: int | None) -> Outage:
    """The error of a file system that fails."""
    name = errno.errorcode.get(number or 0, "an unknown error")
    return Outage(ErrorCode.EXPORT_UNAVAILABLE, f"The folder of EXPORT_STORE_URL fails with {name}.")
