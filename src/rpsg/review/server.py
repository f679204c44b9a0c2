"""Serves the review page to one person on this machine.

It listens on 127.0.0.1 and answers a request only when all of this holds: it names that address as its host
(so no other site's name can be pointed here), it comes from the page itself (origin, fetch metadata), and its
path begins with a random key. The key is given once, for the one-time token in the printed address. No file
is ever read by the name in a path.
"""

import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Lock
from urllib.parse import parse_qs, urlsplit

from rpsg.decisions import Decision, Trail
from rpsg.errors import ConfigError, RpsgError
from rpsg.review.near import PrivateNeighbours
from rpsg.text import reveal

HOST = "127.0.0.1"
_MAX_BODY = 10_000
_SECONDS = 30
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_ASSETS = {
    "": ("review.html", "text/html"),
    "review.css": ("review.css", "text/css"),
    "review.js": ("review.js", "text/javascript"),
}


@dataclass(slots=True, kw_only=True, repr=False)
class Review:
    """What is reviewed, and the answers to what the page asks.

    Attributes:
        texts: id, text and labels of the released texts.
        trail: where decisions go.
        neighbours: None where only synthetic texts are shown.
        has_guarantee: whether the release has a guarantee that a private filter would take.
        was_shown: asks the ledger whether private text was on screen, in this review or another.
        undoable: what decisions of this session replaced, and these themselves, the last one last.
    """

    texts: Mapping[str, tuple[str, Mapping[str, str]]]
    trail: Trail
    neighbours: PrivateNeighbours | None
    has_guarantee: bool = False
    was_shown: Callable[[], bool] = lambda: False
    undoable: list[tuple[Decision | None, Decision]] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def everything(self) -> dict[str, object]:
        """Returns the texts with what was decided on each."""
        current = self.trail.current()
        return {
            "shows_private": self.neighbours is not None,
            "saw_private": self._saw_private(),
            "has_guarantee": self.has_guarantee,
            "texts": [
                {
                    "id": text_id,
                    "text": reveal(text),
                    "labels": [f"{reveal(name)}: {reveal(value)}" for name, value in labels.items()],
                    **self._shown(current.get(text_id)),
                }
                for text_id, (text, labels) in self.texts.items()
            ],
        }

    def _saw_private(self) -> bool:
        # Asked each time: another review may have begun since, and a trail may have been removed.
        return self.neighbours is not None or self.was_shown() or self.trail.saw_private

    def nearest(self, text_id: str) -> list[dict[str, object]]:
        """Returns the private texts nearest to a released one; none in a public review."""
        if self.neighbours is None:
            return []
        return [asdict(item) for item in self.neighbours.find(reveal(self.texts[text_id][0]))]

    def decide(self, text_id: str, verdict: str, reason: str) -> dict[str, object]:
        """Keeps a decision; returns what now holds for the text."""
        with self._lock:
            before = self.trail.last(text_id)
            decided = self.trail.decide(text_id, verdict, reason, saw_private=self._saw_private())
            self.undoable.append((before, decided))
        return {"id": text_id, **self._shown(decided)}

    def undo(self) -> dict[str, object] | None:
        """Takes this session's last decision back; returns what now holds for its text."""
        with self._lock:
            if not self.undoable:
                return None
            before, own = self.undoable[-1]
            text_id = own.text_id
            if self.trail.last(text_id) != own:
                raise ConfigError("this text was decided elsewhere since; nothing was undone")
            verdict, reason = (before.verdict, before.reason) if before else ("undecided", "")
            decided = self.trail.decide(text_id, verdict, reason, saw_private=self._saw_private())
            self.undoable.pop()
            # What was restored may be this session's own: then it can be undone in its turn.
            self.undoable = [(old, decided if new == before else new) for old, new in self.undoable]
        return {"id": text_id, **self._shown(decided)}

    def _shown(self, decision: Decision | None) -> dict[str, str]:
        if decision is None:
            return {"verdict": "undecided", "reason": ""}
        # Who wrote it beside a private text may have quoted that.
        quotes = decision.saw_private and self.neighbours is None
        return {
            "verdict": decision.verdict,
            "reason": "(given beside private text)" if quotes else reveal(decision.reason),
        }


class ReviewServer(ThreadingHTTPServer):
    """The server of one review; it ends with the command."""

    daemon_threads = True
    block_on_close = False

    review: Review

    def __init__(self, *, port: int = 0) -> None:
        self.key = secrets.token_urlsafe(24)
        self._token: str | None = secrets.token_urlsafe(24)
        self._lock = Lock()
        folder = files("rpsg.review").joinpath("assets")
        self.assets = {
            name: (folder.joinpath(file).read_bytes(), kind) for name, (file, kind) in _ASSETS.items()
        }
        super().__init__((HOST, port), _Handler)

    @classmethod
    def on_port(cls, begin: Callable[[], Review], port: int) -> "ReviewServer":
        """Makes a server on this port, 0 for any free one, and then begins the review.

        In this order: a review that shows private text is noted for good, and must not be before it can.

        Raises:
            ConfigError: the port is taken.
        """
        try:
            server = cls(port=port)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no port"
            raise ConfigError(f"cannot listen on {HOST}:{port}: {reason}; leave --port out") from None
        try:
            server.review = begin()
        except BaseException:
            server.server_close()
            raise
        return server

    @property
    def origin(self) -> str:
        """Scheme, address and port."""
        return f"http://{HOST}:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """The address to open, once."""
        return f"{self.origin}/?token={self._token}"

    def spend(self, token: str) -> bool:
        """Tells whether this is the token; it is none any more afterwards."""
        with self._lock:
            good = self._token is not None and _same(token, self._token)
            if good:
                self._token = None
            return good

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: a message might quote private text. The browser sees that it got no answer."""


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = _SECONDS
    server_version = "rpsg"
    sys_version = ""
    body = b""

    def do_GET(self) -> None:
        self._answer({"texts": self._texts, "nearest": self._nearest, "alive": self._alive})

    def do_POST(self) -> None:
        # Read before anything is refused: an answer on a connection with unread bytes may be lost.
        size = self.headers.get("Content-Length", "")
        self.body = self.rfile.read(min(int(size), _MAX_BODY + 1)) if size.isdecimal() else b""
        self._answer({"decide": self._decide, "undo": self._undo})

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuses what is no request that this server knows, with the headers of every other answer."""
        self.close_connection = True
        self._send(HTTPStatus(code), b"", "text/plain")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: paths hold the key."""

    # --- who may ask ---------------------------------------------------------------------------

    def _answer(self, routes: Mapping[str, Callable[[Mapping[str, Sequence[str]]], None]]) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        key, _, name = parts.path.removeprefix("/").partition("/")
        if fault := self._fault():
            self._refuse(fault)
        elif self.command == "GET" and parts.path == "/" and "token" in query:
            self._open(query["token"][0])
        elif not _same(key, self.server.key):
            self._refuse("open the address that the command printed; it works once")
        elif self.command == "GET" and name in self.server.assets and parts.path != f"/{key}":
            self._send(HTTPStatus.OK, *self.server.assets[name])
        elif name in routes and not self.server.review.trail.path.parent.is_dir():
            # The private part was removed: what this process still holds of it is not shown any more.
            self._send(HTTPStatus.GONE, b"", "text/plain")
        elif name in routes:
            self._run(routes[name], query)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")

    def _fault(self) -> str | None:
        if self.headers.get_all("Host") != [f"{HOST}:{self.server.server_address[1]}"]:
            return "another host"
        if self.headers.get_all("Origin", [self.server.origin]) != [self.server.origin]:
            return "another origin"
        if not {"none", "same-origin"}.issuperset(self.headers.get_all("Sec-Fetch-Site", [])):
            return "another site"
        if not self.path.startswith("/"):
            return "an address in the place of a path"
        return None

    def _run(
        self, route: Callable[[Mapping[str, Sequence[str]]], None], query: Mapping[str, Sequence[str]]
    ) -> None:
        try:
            route(query)
        except RpsgError as error:
            self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError):
            self._send_json({"error": "not understood"}, HTTPStatus.BAD_REQUEST)

    def _refuse(self, why: str) -> None:
        self._send(HTTPStatus.FORBIDDEN, f"Refused: {why}.\n".encode(), "text/plain")

    def _open(self, token: str) -> None:
        if not self.server.spend(token):
            self._refuse("this token is not, or no longer, valid; start rpsg review anew")
            return
        self._send(HTTPStatus.SEE_OTHER, b"", "text/plain", {"Location": f"/{self.server.key}/"})

    # --- what they get -------------------------------------------------------------------------

    def _texts(self, _: Mapping[str, Sequence[str]]) -> None:
        self._send_json(self.server.review.everything())

    def _nearest(self, query: Mapping[str, Sequence[str]]) -> None:
        self._send_json(self.server.review.nearest(query["id"][0]))

    def _alive(self, _: Mapping[str, Sequence[str]]) -> None:
        self._send(HTTPStatus.NO_CONTENT, b"", "text/plain")

    def _decide(self, _: Mapping[str, Sequence[str]]) -> None:
        asked = self._body()
        text_id = str(asked["id"])
        if text_id not in self.server.review.texts:
            raise KeyError(text_id)
        verdict, reason = asked["verdict"], asked["reason"]
        if not isinstance(verdict, str) or not isinstance(reason, str):
            raise TypeError
        self._send_json(self.server.review.decide(text_id, verdict, reason))

    def _undo(self, _: Mapping[str, Sequence[str]]) -> None:
        self._body()
        self._send_json(self.server.review.undo())

    def _body(self) -> dict[str, object]:
        # A form of another site cannot send this type without asking first, and it is never let.
        if self.headers.get_content_type() != "application/json" or "Origin" not in self.headers:
            raise ValueError
        if len(self.body) > _MAX_BODY:
            raise ValueError
        found: dict[str, object] = json.loads(self.body)
        return found

    def _send_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(value).encode("ascii"), "application/json")

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
