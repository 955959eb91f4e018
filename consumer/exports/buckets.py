"""Exports in buckets that speak S3, Google's or Azure's protocol; endpoint and credentials come from their usual variables."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

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
from consumer.exports.stopping import Stop
from consumer.exports.variables import CREDENTIALS, store_config
from schemas.events import ErrorCode

if TYPE_CHECKING:
    from obstore import ObjectMeta

BLOCK_BYTES = 8 * 1024 * 1024

# A store that goes silent is given up after four times 10 s. One that is only slow has four times two minutes for a block, each
# time from the byte where it was cut off: 20 kB/s are enough. A retry_timeout below that would end a slow block at its first cut.
_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(minutes=8),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}
_CLIENT: Any = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "10s", "timeout": "120s"}

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
_REPLACED = "412 Precondition Failed"  # of a block that was cut and is read on, obstore says it in no other way

_Store = S3Store | GCSStore | AzureStore


class Buckets:
    """The buckets of one endpoint. Remembers from which of them something was read: what fails there is not the set-up."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._config = store_config(scheme)
        self._read_from: set[str] = set()

    def open(self, bucket: str, key: str, stop: Stop) -> ExportFile:
        """See `ExportStore.open`."""
        try:
            store = self._store(bucket)
        except (BaseError, ValueError):
            raise self._operators_trouble("its variables for endpoint and credentials are incomplete or wrong") from None
        try:
            file = _RemoteFile(store, key, stop)
        except (BaseError, OSError) as error:
            raise self._error(error, store, bucket, stop) from None
        self._read_from.add(bucket)
        return file

    def _store(self, bucket: str) -> _Store:
        config: Any = self._config
        if self._scheme == "s3":
            return S3Store(bucket, config=config, client_options=_CLIENT, retry_config=_RETRIES)
        if self._scheme == "gs":
            return GCSStore(bucket, config=config, client_options=_CLIENT, retry_config=_RETRIES)
        return AzureStore(bucket, config=config, client_options=_CLIENT, retry_config=_RETRIES)

    def _error(self, error: Exception, store: _Store, bucket: str, stop: Stop) -> RunError:
        text = str(error)
        if isinstance(error, FileNotFoundError) and any(code in text for code in _NO_BUCKET) and not self._read_from:
            return self._operators_trouble("there is no such bucket, and none that was read from before")
        if _is_refused_for_all(error):
            return self._operators_trouble("it refuses the credentials, or has another region")
        if isinstance(error, PermissionDeniedError):
            if bucket in self._read_from or stop.wait_for(partial(_can_list, store)):
                return unavailable("its credentials may not read this object")
            return self._operators_trouble("its credentials may not read this bucket")
        return _error(error)

    def _operators_trouble(self, what: str) -> OperatorTrouble:
        return _operators_trouble(f"{what} (see {CREDENTIALS[self._scheme]})")


async def _can_list(store: _Store) -> bool:
    try:
        async for _ in obstore.list(store, chunk_size=1):
            break
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
    if isinstance(error, PreconditionError) or _REPLACED in str(error):
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

    def __init__(self, store: _Store, key: str, stop: Stop) -> None:
        self._store = store
        self._key = key
        self._block_start = 0
        meta, self._block = stop.wait_for(self._first_block)
        self._modified_at = meta["last_modified"]
        super().__init__(meta["size"], meta["e_tag"] or "", stop)

    def read_range(self, start: int, size: int) -> bytes:
        offset = start - self._block_start
        if not 0 <= offset < len(self._block):
            try:
                self._block = self.stop.wait_for(partial(self._next_block, start))
            except (BaseError, OSError) as error:
                raise _error(error) from None
            self._block_start, offset = start, 0
        return self._block[offset : offset + size]

    async def _first_block(self) -> tuple[ObjectMeta, bytes]:
        try:
            answer = await obstore.get_async(self._store, self._key, options={"range": (0, BLOCK_BYTES)})
            return answer.meta, bytes(await answer.bytes_async())
        except BaseError as error:
            if _EMPTY not in str(error):
                raise
            return await obstore.head_async(self._store, self._key), b""

    async def _next_block(self, start: int) -> bytes:
        options: Any = {"if_match": self.etag} if self.etag else {"if_unmodified_since": self._modified_at}
        options["range"] = (start, start + BLOCK_BYTES)
        answer = await obstore.get_async(self._store, self._key, options=options)
        if answer.meta["size"] != self.size or (answer.meta["e_tag"] or "") != self.etag:
            raise replaced()
        return bytes(await answer.bytes_async())
