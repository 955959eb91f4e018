"""Exports in buckets that speak S3, Google's or Azure's protocol; endpoint and credentials come from their usual variables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from consumer.errors import OperatorTrouble, Outage, RunError
from consumer.exports.file import ExportFile, not_there, replaced, unavailable
from schemas.events import ErrorCode

BLOCK_BYTES = 8 * 1024 * 1024

_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}
_CLIENT: Any = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "10s", "timeout": "60s"}

# What a store says when it would refuse any object: in its XML, or in obstore's words.
_OPERATORS_TROUBLE = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "InvalidSecurity",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
    "RequestTimeTooSkewed",
    "AccountProblem",
    "NotSignedUp",
    "AllAccessDisabled",
    "AuthenticationFailed",
    "AccountIsDisabled",
    "InvalidAuthenticationInfo",
    "incorrectly configured region",
    "169.254.169.254",  # no credentials were given, so they were looked for where a cloud machine has them
    "metadata.google.internal",
)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "specified bucket does not exist")
_EMPTY = "416 Range Not Satisfiable"

_Store = S3Store | GCSStore | AzureStore


class Buckets:
    """The buckets of one endpoint. Remembers from which of them something was read: what fails there is not the set-up."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._read_from: set[str] = set()

    def open(self, bucket: str, key: str) -> ExportFile:
        """See `ExportStore.open`."""
        try:
            store = self._store(bucket)
        except (BaseError, ValueError):
            raise _operators_trouble("its variables for endpoint and credentials are incomplete or wrong") from None
        try:
            file = _RemoteFile(store, key)
        except (BaseError, OSError) as error:
            raise self._error(error, store, bucket) from None
        self._read_from.add(bucket)
        return file

    def _store(self, bucket: str) -> _Store:
        if self._scheme == "s3":
            return S3Store(bucket, client_options=_CLIENT, retry_config=_RETRIES)
        if self._scheme == "gs":
            return GCSStore(bucket, client_options=_CLIENT, retry_config=_RETRIES)
        return AzureStore(bucket, client_options=_CLIENT, retry_config=_RETRIES)

    def _error(self, error: Exception, store: _Store, bucket: str) -> RunError:
        text = str(error)
        if isinstance(error, FileNotFoundError) and any(code in text for code in _NO_BUCKET) and not self._read_from:
            return _operators_trouble("there is no such bucket, and none that was read from before")
        if isinstance(error, PermissionDeniedError) and not _is_refused_for_all(error):
            if bucket in self._read_from or _can_list(store):
                return unavailable("its credentials may not read this object")
            return _operators_trouble("its credentials may not read this bucket")
        return _error(error)


def _can_list(store: _Store) -> bool:
    try:
        next(iter(obstore.list(store, chunk_size=1)), None)
    except (BaseError, OSError):
        return False
    return True


def _is_refused_for_all(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, UnauthenticatedError) or any(code in text for code in _OPERATORS_TROUBLE)


def _error(error: Exception) -> RunError:
    """What an answer of the store means for the run. Its text is looked at and never passed on: it holds the path."""
    if isinstance(error, FileNotFoundError | InvalidPathError):
        return not_there()
    if isinstance(error, PreconditionError):
        return replaced()
    if _is_refused_for_all(error):
        return _operators_trouble("it refuses the credentials, or has another region")
    if isinstance(error, PermissionDeniedError):
        return unavailable("its credentials may not read this object any more")
    return Outage(ErrorCode.EXPORT_UNAVAILABLE, "The store of EXPORT_STORE_URL fails or can't be reached.")


def _operators_trouble(what: str) -> OperatorTrouble:
    return OperatorTrouble(ErrorCode.EXPORT_UNAVAILABLE, f"The store of EXPORT_STORE_URL can't be read: {what}.")


class _RemoteFile(ExportFile):
    """Reads a block at a time, each under the condition that the object is still the one that was opened."""

    def __init__(self, store: _Store, key: str) -> None:
        self._store = store
        self._key = key
        self._block_start = 0
        try:
            answer = obstore.get(store, key, options={"range": (0, BLOCK_BYTES)})
            meta, self._block = answer.meta, bytes(answer.bytes())
        except BaseError as error:
            if _EMPTY not in str(error):
                raise
            meta, self._block = obstore.head(store, key), b""
        self._modified_at = meta["last_modified"]
        super().__init__(meta["size"], meta["e_tag"] or "")

    def read_range(self, start: int, size: int) -> bytes:
        offset = start - self._block_start
        if not 0 <= offset < len(self._block):
            self._block, self._block_start, offset = self._fetch(start), start, 0
        return self._block[offset : offset + size]

    def _fetch(self, start: int) -> bytes:
        options: Any = {"if_match": self.etag} if self.etag else {"if_unmodified_since": self._modified_at}
        options["range"] = (start, start + BLOCK_BYTES)
        try:
            answer = obstore.get(self._store, self._key, options=options)
            if answer.meta["size"] != self.size or (answer.meta["e_tag"] or "") != self.etag:
                raise replaced()
            return bytes(answer.bytes())
        except (BaseError, OSError) as error:
            raise _error(error) from None
