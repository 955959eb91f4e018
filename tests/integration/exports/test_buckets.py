"""Exports in buckets: what the store says, and what that means for a run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from consumer.errors import FinalError, NotThereYet, OperatorTrouble, Outage, RunError
from consumer.exports import buckets
from consumer.exports.conversations import Conversation, read_conversations
from consumer.exports.file import ExportFile
from consumer.exports.store import ExportStore
from schemas.events import ErrorCode
from tests.integration.exports.bucket_server import ACCOUNT, Bucket, served_bucket, variables_of
from tests.unit.exports.examples import LIMITS, simple

SEED = 11
QUICKLY = {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=20), "base": 2}


EVERY_KIND = pytest.mark.parametrize("bucket", ["s3", "gs", "az"], indirect=True)


@pytest.fixture
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with served_bucket("exports", getattr(request, "param", "s3")) as served:
        for name, value in variables_of(served).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(buckets, "BLOCK_BYTES", 1_000)
        monkeypatch.setitem(buckets._RETRIES, "backoff", QUICKLY)
        yield served


@pytest.fixture
def store(bucket: Bucket) -> ExportStore:
    return ExportStore.from_url(f"{bucket.kind}://")


def _read(file: ExportFile) -> bytes:
    return b"".join(iter(lambda: file.read(500) or b"", b""))


def _fails(store: ExportStore, path: str = "exports/a.json") -> RunError:
    with pytest.raises(RunError) as caught:
        _read(store.open(path))
    assert "UNTOLD" not in str(caught.value)
    return caught.value


@EVERY_KIND
def test_an_export_is_read_in_ranges(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["Zoë's file?.json"] = json.dumps([simple("x" * 400) for _ in range(20)]).encode()
    with store.open("exports/Zoë's file?.json") as file:
        read = [each for each in read_conversations(file, LIMITS) if isinstance(each, Conversation)]
    assert len(read) == 20
    ranges = [asked for _, asked in bucket.requests]
    assert ranges[:3] == ["bytes=0-999", "bytes=1000-1999", "bytes=2000-2999"]
    assert all(bucket.signed) or bucket.kind == "gs", "the emulator's variable asks for no signature"
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


@EVERY_KIND
def test_a_connection_that_is_cut_in_a_block_is_resumed_at_the_byte_where_it_was_cut(bucket: Bucket, store: ExportStore) -> None:
    """A run that began anew at each cut would never read a large export over a bad line."""
    content = bucket.objects["a.json"] = random.Random(SEED).randbytes(3_000)
    with store.open("exports/a.json") as file:
        bucket.faults = ["drop", "drop"]
        assert _read(file) == content
    assert [asked for _, asked in bucket.requests] == [
        "bytes=0-999", "bytes=1000-1999", "bytes=1500-1999", "bytes=1750-1999", "bytes=2000-2999"
    ]  # fmt: skip
    assert len(set(bucket.conditions[1:])) == 1, "what is resumed must be of the same object"


def test_a_store_that_fails_now_and_then_fails_no_run(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = json.dumps([simple("x" * 400) for _ in range(20)]).encode()
    with store.open("exports/a.json") as file:
        bucket.faults = ["drop", (500, "InternalError"), (503, "SlowDown")]
        assert len(list(read_conversations(file, LIMITS))) == 20
    assert bucket.faults == []


def test_an_object_that_is_replaced_while_a_cut_block_is_resumed_is_noticed(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = b"x" * 5_000
    with store.open("exports/a.json") as file:
        bucket.faults = ["drop"]
        bucket.replacements = {"a.json": b"y" * 5_000}
        with pytest.raises(Outage) as caught:
            _read(file)
    assert "replaced" in caught.value.detail


def test_a_connection_that_is_cut_again_and_again_is_an_outage(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = b"x" * 5_000
    with store.open("exports/a.json") as file:
        bucket.faults = ["drop"] * 20
        with pytest.raises(Outage) as caught:
            _read(file)
    assert caught.value.code is ErrorCode.EXPORT_UNAVAILABLE


def test_a_block_that_trickles_in_is_read_on_where_its_time_ran_out(
    bucket: Bucket, store: ExportStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bucket.objects["a.json"] = random.Random(SEED).randbytes(3_000)
    monkeypatch.setitem(buckets._CLIENT, "timeout", "200ms")
    with store.open("exports/a.json") as file:
        bucket.faults = ["trickle", "trickle"]
        assert _read(file) == content
        bucket.faults = ["trickle"] * 20
        file.seek(0)
        with pytest.raises(Outage):
            _read(file)


def test_a_slow_block_has_time_for_all_its_retries() -> None:
    """Else the first cut of a slow block would be its last, and its run would never get past it."""
    seconds = int(buckets._CLIENT["timeout"].removesuffix("s"))
    assert buckets._RETRIES["retry_timeout"] >= timedelta(seconds=seconds * (1 + buckets._RETRIES["max_retries"]))


def test_a_store_that_says_nothing_is_an_outage(bucket: Bucket, store: ExportStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(buckets._CLIENT, "read_timeout", "100ms")
    bucket.faults = ["silence"] * 20
    assert type(_fails(store)) is Outage
    bucket.objects["a.json"] = b"x" * 5_000
    bucket.faults = ["hang"] * 20
    assert type(_fails(store)) is Outage


@pytest.mark.parametrize(("bucket", "etags"), [("s3", True), ("gs", True), ("az", True), ("s3", False)], indirect=["bucket"])
def test_an_object_that_was_replaced_while_it_was_read_is_noticed(bucket: Bucket, store: ExportStore, etags: bool) -> None:
    bucket.etags = etags
    bucket.objects["a.json"] = b"x" * 5_000
    with store.open("exports/a.json") as file:
        bucket.objects["a.json"] = b"y" * 6_000
        with pytest.raises(Outage) as caught:
            _read(file)
    assert "replaced" in caught.value.detail


@EVERY_KIND
def test_an_object_that_is_gone_while_it_is_read_is_not_there(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = b"x" * 5_000
    with store.open("exports/a.json") as file:
        del bucket.objects["a.json"]
        with pytest.raises(NotThereYet):
            _read(file)


@EVERY_KIND
def test_a_missing_object_may_come_yet(bucket: Bucket, store: ExportStore) -> None:
    error = _fails(store)
    assert type(error) is NotThereYet
    assert error.code is ErrorCode.EXPORT_NOT_FOUND


@EVERY_KIND
def test_an_empty_object_is_a_file_without_content(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = b""
    with store.open("exports/a.json") as file:
        assert (file.size, file.read(10)) == (0, b"")


@EVERY_KIND
def test_one_denied_object_ends_its_own_run(bucket: Bucket, store: ExportStore) -> None:
    bucket.objects["a.json"] = b"[]"
    bucket.denied["a.json"] = "AccessDenied"
    error = _fails(store)
    assert type(error) is FinalError
    assert error.code is ErrorCode.EXPORT_UNAVAILABLE


@EVERY_KIND
def test_denied_by_a_bucket_that_shows_nothing_is_the_operators_trouble_until_something_was_read(
    bucket: Bucket, store: ExportStore
) -> None:
    bucket.list_allowed = False
    bucket.objects = {"a.json": b"[]", "b.json": b"[]"}
    bucket.denied["a.json"] = "AccessDenied"
    assert type(_fails(store)) is OperatorTrouble
    with store.open("exports/b.json"):
        assert type(_fails(store)) is FinalError


@EVERY_KIND
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


@pytest.mark.parametrize(
    ("bucket", "fault"), [("gs", (401, "Unauthenticated")), ("az", (403, "AuthenticationFailed")), ("az", (401, "x"))],
    indirect=["bucket"],
)  # fmt: skip
def test_refused_credentials_of_google_and_azure_are_the_operators_trouble(
    bucket: Bucket, store: ExportStore, fault: tuple[int, str]
) -> None:
    bucket.faults = [fault] * 5
    error = _fails(store)
    assert type(error) is OperatorTrouble
    assert {"gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_CONNECTION_STRING"}[bucket.kind] in error.detail


def test_an_endpoint_may_have_a_path(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Supabase's has."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{bucket.url}/storage/v1/s3")
    bucket.objects["a.json"] = b"[]"
    with ExportStore.from_url("s3://").open("exports/a.json") as file:
        assert file.read() == b"[]"


@pytest.mark.parametrize("bucket", ["az"], indirect=True)
def test_azure_is_read_by_a_connection_string(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_USE_EMULATOR")
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey=c2VjcmV0;BlobEndpoint={bucket.url}/{ACCOUNT};",
    )
    bucket.objects["a.json"] = b"[]"
    with ExportStore.from_url("az://").open("exports/a.json") as file:
        assert file.read() == b"[]"
    assert str(bucket.signed[0]).startswith(f"SharedKey {ACCOUNT}:")


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_google_is_read_with_a_token(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_BASE_URL", bucket.url)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
    bucket.objects["a.json"] = b"[]"
    with ExportStore.from_url("gs://").open("exports/a.json") as file:
        assert file.read() == b"[]"
    assert bucket.signed == ["Bearer token"]


@pytest.mark.parametrize(("url", "variables"), [("az://", {}), ("gs://", {"GOOGLE_SERVICE_ACCOUNT": "/nowhere"})])
def test_incomplete_credentials_are_the_operators_trouble(
    url: str, variables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert type(_fails(ExportStore.from_url(url))) is OperatorTrouble
