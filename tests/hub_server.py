"""A stand-in of a data set hub on loopback: what its client asks for, and what it was sent."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    """Keeps files that were committed, and the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.created: list[dict[str, object]] = []
        # What it answers, in the place of what a hub would, to paths that hold this.
        self.odd: tuple[str, int, bytes, dict[str, str]] | None = None
        # With the status 0 it does not answer.
        self.given_up = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self._send(404, {"error": "not here"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        if self.server.odd is not None and self.server.odd[0] in path:
            if self.server.odd[1] == 0:
                return self.server.given_up.wait()
            return self._reply(*self.server.odd[1:])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid token"})
        if path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self._send(200, {"url": f"{self.server.url}/datasets/me/texts", "name": "me/texts"})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if "/preupload/" in path:
            names = [item["path"] for item in json.loads(body)["files"]]
            kinds = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._send(200, {"files": kinds})
        if "/commit/" in path:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.server.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            done = {
                "commitUrl": f"{self.server.url}/datasets/me/texts/commit/0",
                "commitOid": "0" * 40,
                "pullRequestUrl": None,
            }
            return self._send(200, done)
        return self._send(404, {"error": "not here"})

    def _send(self, status: int, value: object) -> None:
        self._reply(status, json.dumps(value).encode(), {})

    def _reply(self, status: int, body: bytes, more: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, text in more.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.given_up.set()
        server.shutdown()
        server.server_close()
        thread.join()
