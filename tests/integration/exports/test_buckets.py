"""Exports in buckets: what the store says, and what that means for a run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from consumer.errors import FinalError, NotThereYet, OperatorTrouble, Outage, RunError
from consumer.exports import buckets
from consumer.exports.conversations import Conversation, read_conversations
from consumer.exports.file import ExportFile
from consumer.exports.store import ExportStore
from schemas.events import ErrorCode
from tests.integration.exports.s3_server import Bucket, s3_bucket
from tests.unit.exports.examples import LIMITS, simple

SEED = 11


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with s3_bucket("exports") as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setattr(buckets, "BLOCK_BYTES", 1_000)
        yield served


@pytest.fixture
def store(bucket: Bucket) -> ExportStore:
    return ExportStore.from_url("s3://")


def _read(file: ExportFile) -> bytes:
    return b"".join(iter(lambda: file.read(500) or b"", b""))


def _fails(store: ExportStore, path: str = "exports/a.json") -> RunError:
    with pytest.raises(RunError) as caught:
        _read(store.open(path))
    assert "SECRET" not in str(caught.value)
    return caught.value


def test_an_export_is_read_in_ranges(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["Zoë's file?.json"] = json.dumps([simple("x" * 400) for _ in range(20)]).encode()
    with store.open("exports/Zoë's file?.json") as file:
        read = [each for each in read_conversations(file, LIMITS) if isinstance(each, Conversation)]
    assert len(read) == 20
    ranges = [asked for _, asked in bucket.requests]
    assert ranges[:3] == ["bytes=0-999", "bytes=1000-1999", "bytes=2000-2999"]
    assert bucket.conditions[0] is None
    assert all(bucket.conditions[1:]), "every range but the first must be of the same object"
    assert len(ranges) == len(bucket.objects["Zoë's file?.json"]) // 1_000 + 1


def test_seeking_reads_what_a_file_in_memory_would(bucket: Bucket, store: ExportStore) -> None:
    content = bucket.objects["a.json"] = random.Random(SEED).randbytes(5_300)
    chance = random.Random(SEED)
    with store.open("exports/a.json") as file:
        assert file.size == 5_300
        for _ in range(50):
            start = chance.randrange(5_400)
            file.seek(start)
            part = file.read(50) or b""
            assert part == content[start : start + len(part)]
            assert part or start >= len(content)
        file.seek(0)
        assert _read(file) == content
        assert file.seek(-3, 2) == 5_297
        assert file.read(10) == content[-3:]


def test_a_dropped_connection_is_resumed(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = json.dumps([simple("x" * 400) for _ in range(20)]).encode()
    with store.open("exports/a.json") as file:
        bucket.faults = ["drop", (500, "InternalError"), (503, "SlowDown")]
        assert len(list(read_conversations(file, LIMITS))) == 20
    assert bucket.faults == []


@pytest.mark.parametrize("etags", [True, False])
def test_an_object_that_was_replaced_while_it_was_read_is_noticed(bucket: Bucket, store: ExportStore, etags: bool) -> None:
    bucket.etags = etags
    bucket.objects["a.json"] = b"x" * 5_000
    with store.open("exports/a.json") as file:
        bucket.objects["a.json"] = b"y" * 6_000
        with pytest.raises(Outage) as caught:
            _read(file)
    assert "replaced" in caught.value.detail


def test_an_object_that_is_gone_while_it_is_read_is_not_there(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = b"x" * 5_000
    with store.open("exports/a.json") as file:
        del bucket.objects["a.json"]
        with pytest.raises(NotThereYet):
            _read(file)


def test_a_missing_object_may_come_yet(bucket: Bucket, store: ExportStore) -> None:
    error = _fails(store)
    assert type(error) is NotThereYet
    assert error.code is ErrorCode.EXPORT_NOT_FOUND


def test_an_empty_object_is_a_file_without_content(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = b""
    with store.open("exports/a.json") as file:
        assert (file.size, file.read(10)) == (0, b"")


def test_one_denied_object_ends_its_own_run(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = b"[]"
    bucket.denied["a.json"] = "AccessDenied"
    error = _fails(store)
    assert type(error) is FinalError
    assert error.code is ErrorCode.EXPORT_UNAVAILABLE


def test_denied_by_a_bucket_that_shows_nothing_is_the_operators_trouble_until_something_was_read(
    bucket: Bucket, store: ExportStore
) -> None:
    bucket.list_allowed = False
    bucket.objects = {"a.json": b"[]", "b.json": b"[]"}
    bucket.denied["a.json"] = "AccessDenied"
    assert type(_fails(store)) is OperatorTrouble
    with store.open("exports/b.json"):
        assert type(_fails(store)) is FinalError


def test_a_missing_bucket_is_the_operators_trouble_until_something_was_read(bucket: Bucket, store: ExportStore) -> None:
    """An event that names a wrong bucket must not keep a worker from being ready for good."""
    bucket.objects["a.json"] = b"[]"
    assert type(_fails(store, "nowhere/a.json")) is OperatorTrouble
    with store.open("exports/a.json"):
        assert type(_fails(store, "nowhere/a.json")) is NotThereYet


@pytest.mark.parametrize(
    "fault",
    [
        (403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken"), (401, "Unauthorized"),
        (400, "AuthorizationHeaderMalformed"), (403, "RequestTimeTooSkewed"), (301, "PermanentRedirect"),
    ],
)  # fmt: skip
def test_refused_credentials_are_the_operators_trouble(bucket: Bucket, store: ExportStore, fault: tuple[int, str]) -> None:
    bucket.faults = [fault] * 5
    error = _fails(store)
    assert type(error) is OperatorTrouble
    assert "EXPORT_STORE_URL" in error.detail


@pytest.mark.parametrize("fault", [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests"), (400, "BadRequest")])
def test_a_store_that_fails_to_the_end_is_an_outage(bucket: Bucket, store: ExportStore, fault: tuple[int, str]) -> None:
    bucket.faults = [fault] * 10
    error = _fails(store)
    assert type(error) is Outage
    assert error.code is ErrorCode.EXPORT_UNAVAILABLE


def test_a_store_that_nobody_answers_for_is_an_outage(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert type(_fails(ExportStore.from_url("s3://"))) is Outage


@pytest.mark.parametrize(("url", "variables"), [("az://", {}), ("gs://", {"GOOGLE_SERVICE_ACCOUNT": "/nowhere"})])
def test_incomplete_credentials_are_the_operators_trouble(
    url: str, variables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert type(_fails(ExportStore.from_url(url))) is OperatorTrouble
