"""Where exports lie: a folder, or buckets that speak S3, Google's or Azure's protocol (design, "Environment").

A run that finds the store away waits. What an answer of the store means for it stands in `_error`.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from consumer.errors import ConfigurationError
from consumer.exports.buckets import Buckets
from consumer.exports.file import ExportFile
from consumer.exports.folder import Folder

_VARIABLE = "EXPORT_STORE_URL"
_EXPECTED = "expected file:///folder, s3://, gs:// or az://"


class ExportStore:
    """Opens exports by their `storage_path`, which is `bucket/key`."""

    def __init__(self, place: Folder | Buckets) -> None:
        self._place = place

    @classmethod
    def from_url(cls, url: str | None) -> ExportStore:
        """The store that `EXPORT_STORE_URL` names.

        Raises:
            ConfigurationError: naming the variable, when it isn't set or names no store.
        """
        if not url:
            raise ConfigurationError(f"{_VARIABLE} is not set: {_EXPECTED}.")
        parts = urlsplit(url)
        if parts.query or parts.fragment:
            raise ConfigurationError(f"{_VARIABLE} has a query or a fragment: {_EXPECTED}.")
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
                raise ConfigurationError(f"{_VARIABLE} needs an absolute path after three slashes, as in file:///folder.")
            return cls(Folder(unquote(parts.path)))
        if parts.scheme not in ("s3", "gs", "az"):
            raise ConfigurationError(f"{_VARIABLE} names no store that is known: {_EXPECTED}.")
        if parts.netloc or parts.path.strip("/"):
            raise ConfigurationError(
                f"{_VARIABLE} names a bucket, which the first segment of storage_path does: set it to {parts.scheme}:// alone."
            )
        return cls(Buckets(parts.scheme))

    def open(self, storage_path: str) -> ExportFile:
        """The export at `bucket/key`. Blocking; the file is to be closed.

        Raises:
            NotThereYet: `export_not_found`, there is no such object (yet).
            FinalError: `export_unavailable`, the store refuses this object.
            Outage: `export_unavailable`, the store fails or can't be reached.
            OperatorTrouble: `export_unavailable`, the store refuses every object, or isn't there.
        """
        bucket, _, key = storage_path.partition("/")
        return self._place.open(bucket, key)
