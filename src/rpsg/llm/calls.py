"""Finished model calls, in the run folder only: `private/calls.sqlite`.

The file is only ever added to. What is in it is never asked for again, so a run that was stopped goes on
where it was and writes the same bytes. Prompts are kept as hashes, replies as they are.
"""

import asyncio
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rpsg.errors import RunDirError
from rpsg.types import Completion, Content, TextRequest

# A reply waits at most so long to be written together with others; fewer writes, and still within reach of
# a kill for no longer than this.
COMMIT_SECONDS = 0.01
# How often a commit also waits for the disk, which a power cut would otherwise rob of what came since.
SYNC_SECONDS = 0.5
_SCHEMA = """
CREATE TABLE IF NOT EXISTS chunks (key TEXT PRIMARY KEY, replies TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, time REAL NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL,
    prompt_tokens INTEGER, tokens INTEGER, reason TEXT NOT NULL, reply TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_by_key ON calls (key);
CREATE TABLE IF NOT EXISTS sent (time REAL NOT NULL, host TEXT NOT NULL, model TEXT NOT NULL,
    content TEXT NOT NULL, characters INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batches (mark TEXT NOT NULL, key TEXT NOT NULL, batch TEXT, ended INTEGER NOT NULL,
    PRIMARY KEY (mark, key));
"""
_USAGE = """
SELECT model, SUM(known * COALESCE(prompt_tokens, 0)), SUM(known * COALESCE(tokens, 0)), SUM(known),
    SUM(NOT known), (SELECT AVG(characters) FROM sent WHERE sent.model = used.model),
    SUM((NOT known) * LENGTH(json_extract(reply, '$.text')))
FROM (SELECT *, prompt_tokens IS NOT NULL AND tokens IS NOT NULL AS known FROM calls) AS used
GROUP BY model
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What calls used, as servers reported it.

    Attributes:
        model: its name.
        n_prompt_tokens: read, where reported.
        n_tokens: written, where reported.
        n_reported: calls whose use was reported.
        n_unreported: those of which nothing is known.
        n_prompt_characters: of the latter's prompts, on average a call; for limits, never shown as use.
        n_characters: of all of their replies; likewise.
    """

    model: str
    n_prompt_tokens: int
    n_tokens: int
    n_reported: int
    n_unreported: int = 0
    n_prompt_characters: float = 0.0
    n_characters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """How often one kind of content went to one host, failed attempts included."""

    host: str
    model: str
    content: Content
    n: int
    n_characters: int


def read_usage(db: sqlite3.Connection) -> list[Usage]:
    """Sums what the calls of an open file used, a model."""
    return [
        Usage(
            model=row[0],
            n_prompt_tokens=row[1],
            n_tokens=row[2],
            n_reported=row[3],
            n_unreported=row[4],
            n_prompt_characters=row[5] or 0.0,
            n_characters=row[6],
        )
        for row in db.execute(_USAGE)
    ]


def read_sent(db: sqlite3.Connection) -> list[Sent]:
    """Sums what an open file says was sent where."""
    rows = db.execute(
        "SELECT host, model, content, COUNT(*), SUM(characters) FROM sent GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return [Sent(host=row[0], model=row[1], content=row[2], n=row[3], n_characters=row[4]) for row in rows]


def count_replies(path: Path) -> int:
    """Returns how many requests to language models a file of finished calls holds an answer to."""
    both = (
        "SELECT (SELECT COALESCE(SUM(json_array_length(replies)), 0) FROM chunks) "
        "+ (SELECT COUNT(*) FROM calls)"
    )
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        return int(db.execute(both).fetchone()[0])


class CallStore:
    """The file of finished calls; for its owner's eyes only.

    Raises:
        RunDirError: the file cannot be opened, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Used by the thread that runs the calls while the one that asked for them waits.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise RunDirError(f"cannot open the store of model calls {path}: {error}") from None
        self._synced = 0.0

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    # --- whole chunks of a model in this process -----------------------------------------------------

    def get_chunk(self, key: str) -> list[list[dict[str, Any]]] | None:
        """Returns the stored replies of a chunk, or nothing."""
        row = self._db.execute("SELECT replies FROM chunks WHERE key = ?", (key,)).fetchone()
        replies: list[list[dict[str, Any]]] | None = json.loads(row[0]) if row else None
        return replies

    def put_chunk(self, key: str, replies: Sequence[object]) -> None:
        """Stores a chunk and waits for the disk."""
        self._write([("INSERT OR IGNORE INTO chunks VALUES (?, ?)", (key, json.dumps(replies)))], sync=True)

    # --- single calls of a server --------------------------------------------------------------------

    def find(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Returns the stored replies of these calls."""
        found: dict[str, Completion] = {}
        for start in range(0, len(keys), 500):
            part = list(keys[start : start + 500])
            marks = ",".join("?" * len(part))
            # The first reply that was stored is the one that was used.
            rows = self._db.execute(
                f"SELECT key, reply FROM calls WHERE key IN ({marks}) ORDER BY id DESC", part
            )
            found.update({key: Completion(**json.loads(reply)) for key, reply in rows})
        return found

    def usage(self) -> list[Usage]:
        """Sums what the run's calls used so far, a model."""
        return read_usage(self._db)

    def sent(self) -> list[Sent]:
        """Sums what was sent where."""
        return read_sent(self._db)

    def write_calls(self, calls: Sequence["Call"], sent: Sequence["Sending"]) -> None:
        """Stores finished calls and what was sent, in one transaction."""
        sync = time.monotonic() - self._synced > SYNC_SECONDS
        self._write(
            [(_INSERT_CALL, call.row()) for call in calls] + [(_INSERT_SENT, item.row()) for item in sent],
            sync=sync,
        )

    # --- batches that are under way ------------------------------------------------------------------

    def open_batches(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Returns the batches under way that hold any of these calls: our mark to the server's id."""
        wanted = set(keys)
        rows = self._db.execute("SELECT mark, key, batch FROM batches WHERE NOT ended ORDER BY rowid")
        return {mark: batch for mark, key, batch in rows if key in wanted}

    def keys_in_batch(self, mark: str) -> set[str]:
        """Returns the calls of a batch that are not over."""
        rows = self._db.execute("SELECT key FROM batches WHERE mark = ? AND NOT ended", (mark,))
        return {row[0] for row in rows}

    def begin_batch(self, mark: str, sendings: Mapping[str, "Sending"]) -> None:
        """Notes the calls of a batch before it is sent, by their keys."""
        rows = [("INSERT INTO batches VALUES (?, ?, NULL, 0)", (mark, key)) for key in sendings]
        self._write(rows + [(_INSERT_SENT, item.row()) for item in sendings.values()], sync=True)

    def name_batch(self, mark: str, batch: str) -> None:
        """Notes the server's id of a batch."""
        self._write([("UPDATE batches SET batch = ? WHERE mark = ?", (batch, mark))], sync=True)

    def end_batch(self, mark: str, calls: Sequence["Call"], keys: Iterable[str]) -> None:
        """Stores what became of these calls of a batch, all at once, and that they are over."""
        ended = [("UPDATE batches SET ended = 1 WHERE mark = ? AND key = ?", (mark, key)) for key in keys]
        self._write([*((_INSERT_CALL, call.row()) for call in calls), *ended], sync=True)

    def _write(self, statements: Iterable[tuple[str, tuple[object, ...]]], *, sync: bool) -> None:
        try:
            self._db.execute("BEGIN")
            for statement, values in statements:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
            if sync:
                self._sync()
        except (sqlite3.Error, OSError, OverflowError) as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunDirError(
                f"cannot store finished model calls ({error}); free some space, then resume the run"
            ) from None

    def _sync(self) -> None:
        # A committed transaction is safe from a kill; only the disk's own cache may still lose it.
        handle = os.open(f"{self._path}-wal", os.O_RDONLY)
        try:
            os.fdatasync(handle)
        finally:
            os.close(handle)
        self._synced = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One finished call."""

    key: str
    stage: str
    model: str
    reply: Completion

    def row(self) -> tuple[object, ...]:
        """Returns the columns of table `calls`."""
        reply = self.reply
        text = json.dumps(asdict(reply), ensure_ascii=False)
        used = (reply.n_prompt_tokens, reply.n_tokens)
        return (None, self.key, time.time(), self.stage, self.model, *used, reply.reason, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One request that left this process."""

    host: str
    model: str
    content: Content
    n_characters: int

    def row(self) -> tuple[object, ...]:
        """Returns the columns of table `sent`."""
        return (time.time(), self.host, self.model, self.content, self.n_characters)


_INSERT_CALL = "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_SENT = "INSERT INTO sent VALUES (?, ?, ?, ?, ?)"


class GroupCommit:
    """Writes what happens within a few milliseconds in one transaction."""

    def __init__(self, store: CallStore) -> None:
        self._store = store
        self._calls: list[Call] = []
        self._sent: list[Sending] = []
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def sending(self, item: Sending) -> None:
        """Notes a request; on file soon, whether it is answered or not."""
        self._sent.append(item)
        self._schedule()

    async def add(self, call: Call) -> None:
        """Returns when the call is on file.

        Raises:
            RunDirError: it cannot be written.
        """
        self._calls.append(call)
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        self._schedule()
        # One caller's end must not end the others' wait.
        await asyncio.shield(self._done)

    def flush(self) -> None:
        """Writes what is waiting.

        Raises:
            RunDirError: it cannot be written.
        """
        if self._timer is not None:
            self._timer.cancel()
        error = self._write()
        if error is not None:
            raise error

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_SECONDS, self._write)

    def _write(self) -> RunDirError | None:
        calls, sent, done = self._calls, self._sent, self._done
        self._calls, self._sent, self._done, self._timer = [], [], None, None
        try:
            if calls or sent:
                self._store.write_calls(calls, sent)
        except RunDirError as error:
            if done is None:
                # Nobody waits for these lines: the next write, or the last, tries again and tells.
                self._sent = sent + self._sent
                return error
            done.set_exception(error)
            return None
        if done is not None:
            done.set_result(None)
        return None


def call_key(model: str, request: TextRequest) -> str:
    """Returns what a call is found by: a hash of the model and the whole request."""
    return key_of([model, asdict(request)])


def key_of(value: Sequence[object] | Mapping[str, object]) -> str:
    """Hashes plain values."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    # Half a character pair, which a hostile text may hold, has no UTF-8 form of its own.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
