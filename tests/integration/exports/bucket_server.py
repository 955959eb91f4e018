"""A bucket that speaks as much S3, Google's XML or Azure's Blob protocol as ranged reads need, with faults on the wire."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

ACCOUNT = "devstoreaccount1"  # of Azure's emulators, whose containers lie below it

# Azure's word for what S3 and Google say.
_AZURE_CODES = {
    "NoSuchBucket": "ContainerNotFound",
    "NoSuchKey": "BlobNotFound",
    "AccessDenied": "AuthorizationPermissionMismatch",
    "PreconditionFailed": "ConditionNotMet",
}
_LIST = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
_AZURE_LIST = b'<?xml version="1.0"?><EnumerationResults ContainerName="exports"><Blobs/><NextMarker/></EnumerationResults>'


@dataclass
class Bucket:
    """What the server says.

    `faults` are served first, one a request: a status and a code; `drop` cuts the body in the middle, `hang` says nothing more
    from there on, `silence` says nothing at all, `trickle` says a tenth of the body and then a byte now and then.
    """

    kind: str
    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    replacements: dict[str, bytes] = field(default_factory=dict)  # put in place once the next fault was served
    denied: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[int, str] | str] = field(default_factory=list)
    list_allowed: bool = True
    etags: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)
    signed: list[str | None] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)


def variables_of(bucket: Bucket) -> dict[str, str]:
    """The variables by which a user of an emulator names it."""
    match bucket.kind:
        case "s3":
            return {"AWS_ENDPOINT_URL": bucket.url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        case "gs":
            return {"STORAGE_EMULATOR_HOST": bucket.url}
        case _:
            return {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": bucket.url}


@contextmanager
def served_bucket(name: str, kind: str) -> Iterator[Bucket]:
    """Serves one bucket on a free port of 127.0.0.1; `kind` is the scheme: `s3`, `gs` (whose XML is that of S3) or `az`."""
    bucket = Bucket(kind)

    class Handler(_Handler):
        served = bucket
        served_name = name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield bucket
    finally:
        bucket.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    served: Bucket
    served_name: str

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        bucket = self.served
        path = unquote(urlsplit(self.path).path).removeprefix("/storage/v1/s3").lstrip("/")
        name, _, key = (path.removeprefix(f"{ACCOUNT}/") if bucket.kind == "az" else path).partition("/")
        bucket.requests.append((key, self.headers.get("Range")))
        bucket.conditions.append(self.headers.get("If-Match"))
        bucket.signed.append(self.headers.get("Authorization"))
        if bucket.faults:
            self._fault(bucket.faults.pop(0), key)
        elif name != self.served_name:
            self._refuse(404, "NoSuchBucket")
        elif key in bucket.denied:
            self._refuse(403, bucket.denied[key])
        elif not key:
            self._list()
        elif key not in bucket.objects:
            self._refuse(404, "NoSuchKey")
        else:
            self._object(bucket.objects[key])

    def _fault(self, fault: tuple[int, str] | str, key: str) -> None:
        if isinstance(fault, tuple):
            self._refuse(*fault)
            return
        if fault == "silence":
            self._hang()
        else:
            self._object(self.served.objects[key], fault)
            self.served.objects.update(self.served.replacements)
        self.close_connection = True

    def _hang(self) -> None:
        self.served.hanging.set()
        self.served.closing.wait(60)

    def _refuse(self, status: int, code: str) -> None:
        code = _AZURE_CODES.get(code, code) if self.served.kind == "az" else code
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>UNTOLD</Message></Error>"
        self._answer(status, body.encode(), {"x-ms-error-code": code} if self.served.kind == "az" else {})

    def _list(self) -> None:
        if not self.served.list_allowed:
            self._refuse(403, "AccessDenied")
            return
        self._answer(200, _AZURE_LIST if self.served.kind == "az" else _LIST, {})

    def _object(self, content: bytes, fault: str = "") -> None:
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT", **({"ETag": etag} if self.served.etags else {})}
        if self.headers.get("If-Match") not in (None, etag):
            self._refuse(412, "PreconditionFailed")
            return
        asked = self.headers.get("Range")
        if asked is None:
            self._answer(200, content, headers)
            return
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        if first >= len(content):
            self._refuse(416, "InvalidRange")
            return
        part = content[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        self._answer(206, part, headers, fault)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], fault: str = "") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        match fault:
            case "drop" | "hang":
                self.wfile.write(body[: len(body) // 2])
            case "trickle":
                self.wfile.write(body[: len(body) // 10])
                self._trickle(body[len(body) // 10 :])
            case _:
                self.wfile.write(body)
        if fault == "hang":
            self.wfile.flush()
            self._hang()

    def _trickle(self, body: bytes) -> None:
        try:
            for at in range(len(body)):
                if self.served.closing.wait(0.02):
                    return
                self.wfile.write(body[at : at + 1])
        except ConnectionError:
            return
