"""A bucket that speaks as much S3 as ranged reads need, with faults on the wire."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Bucket:
    """What the server says. `faults` are served first, one a request: a status and an S3 code, or `drop`."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    denied: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[int, str] | str] = field(default_factory=list)
    list_allowed: bool = True
    etags: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)


@contextmanager
def s3_bucket(name: str) -> Iterator[Bucket]:
    """Serves one bucket on a free port of 127.0.0.1."""
    bucket = Bucket()

    class Handler(_Handler):
        served = bucket
        served_name = name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield bucket
    finally:
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
        path = unquote(urlsplit(self.path).path)
        name, _, key = path.lstrip("/").partition("/")
        bucket.requests.append((key, self.headers.get("Range")))
        bucket.conditions.append(self.headers.get("If-Match"))
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
        else:
            self._object(self.served.objects[key], cut=True)
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>SECRET</Message></Error>".encode(), {})

    def _list(self) -> None:
        if not self.served.list_allowed:
            self._refuse(403, "AccessDenied")
            return
        self._answer(200, b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>", {})

    def _object(self, content: bytes, cut: bool = False) -> None:
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
        self._answer(206, part, headers, cut)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
