"""A bucket that speaks as much of S3's protocol as Arrow's client asks for, on the loopback address."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"


class Bucket:
    """Objects by key, everything that was ever written, and whether requests are refused."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[str] = []
        self.refuses = False
        self.url = ""
        self.n_uploads = 0
        self._parts: dict[str, dict[int, bytes]] = {}

    def answer(
        self, verb: str, key: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if self.refuses:
            return 403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>", {}
        if not key:
            return self._answer_for_bucket(verb, query, body)
        if "uploads" in query or "uploadId" in query:
            return self._upload(verb, key, query, body)
        if verb == "PUT":
            return self._put(key, body)
        if verb == "DELETE":
            self.objects.pop(key, None)
            return 204, b"", {}
        if key not in self.objects:
            return 404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", {}
        return 200, self.objects[key], {"ETag": '"e"', "Last-Modified": "Mon, 30 Nov 2026 10:00:00 GMT"}

    def _put(self, key: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        self.objects[key] = body
        self.written.append(key)
        return 200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}

    def _upload(
        self, verb: str, key: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if "uploads" in query:
            self.n_uploads += 1
            name = f"u{len(self._parts)}"
            self._parts[name] = {}
            tag = "InitiateMultipartUploadResult"
            return 200, f"<{tag}><UploadId>{name}</UploadId></{tag}>".encode(), {}
        parts = self._parts[query["uploadId"]]
        if verb == "PUT":
            parts[int(query["partNumber"])] = body
            return 200, b"", {"ETag": '"part"'}
        self._put(key, b"".join(parts[number] for number in sorted(parts)))
        tag = "CompleteMultipartUploadResult"
        return 200, f"<{tag}><Key>{escape(key)}</Key><ETag>e</ETag></{tag}>".encode(), {}

    def _answer_for_bucket(
        self, verb: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if "delete" in query:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.objects.pop(key, None)
            return 200, b"<DeleteResult></DeleteResult>", {}
        found = [key for key in sorted(self.objects) if key.startswith(query.get("prefix", ""))]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            "<LastModified>2026-11-30T10:00:00.000Z</LastModified></Contents>"
            for key in found
        )
        tag = "ListBucketResult"
        page = f"<{tag}><KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>{items}</{tag}>"
        return 200, page.encode(), {}


def _plain(body: bytes) -> bytes:
    """Returns what a body of signed chunks holds."""
    found, rest = b"", body
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if not size:
            break
        found, rest = found + rest[:size], rest[size + 2 :]
    return found


class _Handler(BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: found[0] for name, found in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self._body()
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
            body = _plain(body)
        name, _, key = unquote(parts.path).lstrip("/").partition("/")
        assert name == BUCKET
        status, page, headers = self.bucket.answer(self.command, key, query, body)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and status == 200:
            status, page = 206, page[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return found

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 (the names of the library)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_bucket() -> Iterator[Bucket]:
    """Serves a bucket; `url` is a folder in it, for Arrow."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    bucket.url = (
        f"s3://{BUCKET}/texts?scheme=http&region=here&endpoint_override=127.0.0.1:{server.server_port}"
    )
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
