"""Model wrappers: the store of finished calls, and the guard on private text."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rpsg.errors import PrivateDataError, RunDirError
from rpsg.types import Completion, Progress, Summariser, TextModel, TextRequest, Trust

OnProgress = Callable[[Progress], None]
Item = TypeVar("Item")


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

    def get(self, key: str) -> list[list[dict[str, Any]]] | None:
        """Returns the stored replies, or nothing."""
        row = self._db.execute("SELECT replies FROM chunks WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        self.n_found += 1
        replies: list[list[dict[str, Any]]] = json.loads(row[0])
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


class _Chunks:
    """Runs calls in chunks of fixed size in the order given, each stored and found as a whole.

    A chunk's bytes depend on what else is in it (half-precision arithmetic), so chunks are never cut anew.
    """

    def __init__(
        self, store: CallStore, *, stage: str, chunk_size: int, settings: str, on_progress: OnProgress
    ) -> None:
        self._store = store
        self._chunk_size = chunk_size
        self._settings = settings
        self._on_progress = on_progress
        self.stage = stage

    def run(
        self, items: Sequence[Item], call: Callable[[Sequence[Item]], list[list[Completion]]], *, name: str
    ) -> list[list[Completion]]:
        """Returns a list of completions an item. `name` and `repr`-free JSON of the items are the key."""
        results: list[list[Completion]] = []
        n_tokens, started = 0, time.monotonic()
        for start in range(0, len(items), self._chunk_size):
            chunk = items[start : start + self._chunk_size]
            key = _key(name, self._settings, chunk)
            stored = self._store.get(key)
            n_new = 0
            if stored is None:
                replies = call(chunk)
                self._store.put(key, [[asdict(reply) for reply in group] for group in replies])
                n_new = sum(reply.n_tokens or 0 for group in replies for reply in group)
            else:
                replies = [[Completion(**reply) for reply in group] for group in stored]
            results += replies
            n_tokens += n_new
            self._on_progress(
                Progress(
                    stage=self.stage,
                    done=len(results),
                    total=len(items),
                    n_tokens=n_tokens,
                    n_new=n_new,
                    seconds=time.monotonic() - started,
                )
            )
        return results


class StoredTextModel:
    """A text model whose finished chunks are kept. `stage` names what it is writing now."""

    def __init__(
        self,
        model: TextModel,
        *,
        store: CallStore,
        stage: str,
        chunk_size: int,
        settings: str,
        on_progress: OnProgress,
    ) -> None:
        self._model = model
        self._chunks = _Chunks(
            store, stage=stage, chunk_size=chunk_size, settings=settings, on_progress=on_progress
        )
        self.name = model.name
        self.trust: Trust = model.trust
        self.context_tokens = model.context_tokens

    def at(self, stage: str) -> "StoredTextModel":
        """Names the stage that the next calls belong to; shown with the progress."""
        self._chunks.stage = stage
        return self

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Completes chunk by chunk, reporting after each."""
        replies = self._chunks.run(
            requests, lambda chunk: [[reply] for reply in self._model.complete(chunk)], name=self.name
        )
        return [reply for (reply,) in replies]


class StoredSummariser:
    """A summariser whose finished chunks are kept."""

    def __init__(
        self, model: Summariser, store: CallStore, *, chunk_size: int, settings: str, on_progress: OnProgress
    ) -> None:
        self._model = model
        self._chunks = _Chunks(
            store, stage="abstract", chunk_size=chunk_size, settings=settings, on_progress=on_progress
        )
        self.name = model.name
        self.trust: Trust = model.trust
        self.max_words = model.max_words

    def summarise(self, texts: Sequence[str], *, n: int, seeds: Sequence[int]) -> list[list[Completion]]:
        """Summarises chunk by chunk, reporting after each."""
        return self._chunks.run(
            [(text, seed, n) for text, seed in zip(texts, seeds, strict=True)],
            lambda chunk: self._model.summarise(
                [text for text, _, _ in chunk], n=n, seeds=[seed for _, seed, _ in chunk]
            ),
            name=self.name,
        )


def _key(model: str, settings: str, items: Sequence[object]) -> str:
    plain = [asdict(item) if isinstance(item, TextRequest) else item for item in items]
    text = json.dumps([model, settings, plain], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
