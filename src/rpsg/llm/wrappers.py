"""Model wrappers: the store of finished calls, and the guard on private text."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rpsg.errors import PrivateDataError, RunDirError
from rpsg.types import Completion, Progress, Summariser, TextModel, TextRequest, Trust

OnProgress = Callable[[Progress], None]


def require_local(name: str, trust: Trust, *, task: str) -> None:
    """Refuses a remote model for a task that reads private text.

    Raises:
        PrivateDataError: the model is remote.
    """
    if trust != "local":
        raise PrivateDataError(f"{task} reads private text, so its model must be local; {name!r} is remote")


class CallStore:
    """Finished chunks of model calls, in the run folder only.

    A chunk is stored in one transaction when all its replies are there, so a run that was stopped
    goes on where it was and writes the same bytes.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS chunks (key TEXT PRIMARY KEY, replies TEXT NOT NULL)"
            )
        except (sqlite3.Error, OSError) as error:
            raise RunDirError(f"cannot open the store of model calls {path}: {error}") from None
        self.n_found = 0

    def get(self, key: str) -> list[object] | None:
        """Returns the stored replies, or nothing."""
        row = self._db.execute("SELECT replies FROM chunks WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        self.n_found += 1
        replies: list[object] = json.loads(row[0])
        return replies

    def put(self, key: str, replies: Sequence[object]) -> None:
        """Stores a chunk.

        Raises:
            RunDirError: the disk is full or the file cannot be written.
        """
        try:
            self._db.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?)", (key, json.dumps(replies)))
        except sqlite3.Error as error:
            raise RunDirError(
                f"cannot store finished model calls ({error}); free some space, then resume the run"
            ) from None

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


class StoredTextModel:
    """A text model whose finished chunks are kept.

    Requests are cut into chunks of fixed size in the order given. A chunk's bytes depend on what
    else is in it (half-precision arithmetic), so it is stored, found and resumed as a whole.
    """

    def __init__(
        self, model: TextModel, store: CallStore, *, chunk_size: int, settings: str, on_progress: OnProgress
    ) -> None:
        self._model = model
        self._store = store
        self._chunk_size = chunk_size
        self._settings = settings
        self._on_progress = on_progress
        self.stage = "write"

    @property
    def name(self) -> str:
        """The wrapped model's name."""
        return self._model.name

    @property
    def trust(self) -> Trust:
        """The wrapped model's trust."""
        return self._model.trust

    @property
    def context_tokens(self) -> int:
        """The wrapped model's context."""
        return self._model.context_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Counts tokens with the wrapped model."""
        return self._model.count_tokens(texts)

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Completes chunk by chunk, reporting after each."""
        replies: list[Completion] = []
        n_tokens, started = 0, time.monotonic()
        for start in range(0, len(requests), self._chunk_size):
            chunk = requests[start : start + self._chunk_size]
            fresh, done = self._complete_chunk(chunk)
            replies += done
            n_tokens += sum(reply.n_tokens for reply in done) if fresh else 0
            self._on_progress(
                Progress(
                    stage=self.stage,
                    done=len(replies),
                    total=len(requests),
                    n_tokens=n_tokens,
                    seconds=time.monotonic() - started,
                )
            )
        return replies

    def _complete_chunk(self, chunk: Sequence[TextRequest]) -> tuple[bool, list[Completion]]:
        key = _key(self.name, self._settings, [_request_json(request) for request in chunk])
        stored = self._store.get(key)
        if stored is not None:
            return False, [Completion(**reply) for reply in stored]  # type: ignore[arg-type]
        replies = self._model.complete(chunk)
        self._store.put(key, [asdict(reply) for reply in replies])
        return True, replies


class StoredSummariser:
    """A summariser whose finished chunks are kept."""

    def __init__(
        self, model: Summariser, store: CallStore, *, chunk_size: int, settings: str, on_progress: OnProgress
    ) -> None:
        self._model = model
        self._store = store
        self._chunk_size = chunk_size
        self._settings = settings
        self._on_progress = on_progress

    @property
    def name(self) -> str:
        """The wrapped model's name."""
        return self._model.name

    @property
    def trust(self) -> Trust:
        """The wrapped model's trust."""
        return self._model.trust

    @property
    def max_words(self) -> int:
        """The wrapped model's longest text."""
        return self._model.max_words

    def summarise(self, texts: Sequence[str], *, n: int, seeds: Sequence[int]) -> list[list[Completion]]:
        """Summarises chunk by chunk, reporting after each."""
        found: list[list[Completion]] = []
        n_tokens, started = 0, time.monotonic()
        for start in range(0, len(texts), self._chunk_size):
            part = slice(start, start + self._chunk_size)
            key = _key(self.name, self._settings, [n, list(texts[part]), list(seeds[part])])
            stored = self._store.get(key)
            if stored is None:
                new = self._model.summarise(texts[part], n=n, seeds=seeds[part])
                self._store.put(key, [[asdict(reply) for reply in replies] for replies in new])
                n_tokens += sum(reply.n_tokens for replies in new for reply in replies)
            else:
                new = [[Completion(**reply) for reply in replies] for replies in stored]  # type: ignore[attr-defined]
            found += new
            self._on_progress(
                Progress(
                    stage="abstract",
                    done=len(found),
                    total=len(texts),
                    n_tokens=n_tokens,
                    seconds=time.monotonic() - started,
                )
            )
        return found


def _request_json(request: TextRequest) -> object:
    return asdict(request)


def _key(model: str, settings: str, content: object) -> str:
    text = json.dumps([model, settings, content], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
