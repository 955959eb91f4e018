"""Where exports lie: a folder, or buckets that speak S3, Google's or Azure's protocol (design, "Environment")."""

from __future__ import annotations

from urllib.parse import unquote

from consumer.errors import ConfigurationError
from consumer.exports.buckets import Buckets
from consumer.exports.file import ExportFile
from consumer.exports.folder import Folder
from consumer.exports.stopping import Stop

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
            ConfigurationError: naming the variable, when it isn't set or names no store, or an endpoint's that is no URL.
        """
        if not url:
            raise ConfigurationError(f"{_VARIABLE} is not set: {_EXPECTED}.")
        scheme, separator, rest = url.partition("://")
        scheme = scheme.lower()
        if scheme == "file" and separator:
            path = rest.removeprefix("localhost")
            if not path.startswith("/") or "?" in path or "#" in path:
                raise ConfigurationError(f"{_VARIABLE} needs three slashes and an escaped path, as in file:///a%20folder.")
            return cls(Folder(unquote(path)))
        if scheme not in ("s3", "gs", "az") or not separator:
            raise ConfigurationError(f"{_VARIABLE} names no store that is known: {_EXPECTED}.")
        if rest:
            raise ConfigurationError(
                f"{_VARIABLE} names a bucket, which the first segment of storage_path does: set it to {scheme}:// alone."
            )
        return cls(Buckets(scheme))

    def open(self, storage_path: str, stop: Stop | None = None) -> ExportFile:
        """The export at `bucket/key`. Blocking, in a thread without an event loop; the file is to be closed.

        Raises:
            ReadStopped: once `stop` is set, from here and from every read; the one that waits is interrupted.
            NotThereYet: `export_not_found`, there is no such object (yet).
            FinalError: `export_unavailable`, the store refuses this object.
            Outage: `export_unavailable`, the store fails or can't be reached.
            OperatorTrouble: `export_unavailable`, the store refuses every object, or isn't there.
        """
        bucket, _, key = storage_path.partition("/")
        return self._place.open(bucket, key, stop or Stop())
