"""The one door: every value that stops being private goes through `Ledger.release`.

A draw is made in memory and committed together with its ledger line; only then is it returned. A
draw that was not committed was seen by nobody and costs nothing; one that was is replayed when the
run is resumed, never drawn again.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from rpsg.errors import PrivacyError, RunDirError
from rpsg.privacy.accounting import GaussianEvent, NonPrivateEvent, PrivacyEvent, PureEvent
from rpsg.privacy.mechanisms import Mechanism, NoisyMax, NonPrivateTexts, describe
from rpsg.privacy.noise import NoiseSource, SecureNoise
from rpsg.types import SyntheticText

Value = TypeVar("Value")
_EVENTS = {kind.__name__: kind for kind in (GaussianEvent, PureEvent, NonPrivateEvent)}
_BUSY_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS lines (
    line_id INTEGER PRIMARY KEY,
    label TEXT NOT NULL UNIQUE,
    mechanism TEXT NOT NULL,
    parameters TEXT NOT NULL,
    events TEXT NOT NULL,
    note TEXT NOT NULL,
    secure_noise INTEGER NOT NULL,
    time REAL NOT NULL,
    result TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS drawn (record_id TEXT PRIMARY KEY, label TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """What was released, without the value.

    Attributes:
        line_id: position in the ledger.
        label: the release's name, unique in the run.
        mechanism: class name of the mechanism.
        parameters: its public parameters.
        events: what it cost.
        note: what a reader must know about this line.
        secure_noise: whether the noise came from the secure source.
    """

    line_id: int
    label: str
    mechanism: str
    parameters: dict[str, object]
    events: tuple[PrivacyEvent, ...]
    note: str
    secure_noise: bool


class Ledger:
    """All releases of a run, in one SQLite file."""

    def __init__(self, db: sqlite3.Connection, noise: NoiseSource) -> None:
        self._db = db
        self._noise = noise

    @classmethod
    def open(cls, path: Path, *, noise: NoiseSource | None = None) -> Self:
        """Opens or begins a ledger, readable by its owner only.

        Args:
            path: the file.
            noise: where noise comes from; the secure source unless a test gives another.

        Raises:
            RunDirError: the file cannot be opened.
        """
        try:
            path.touch(mode=0o600)
            db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise RunDirError(f"cannot open the ledger {path}: {error}") from None
        return cls(db, noise if noise is not None else SecureNoise())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def release(
        self, label: str, mechanism: Mechanism[Value], private_value: Value, *, note: str = ""
    ) -> object:
        """Releases a value: draws, commits draw and ledger line in one transaction, returns.

        Args:
            label: names the release; a label released before returns what was drawn then.
            mechanism: what to draw and what it costs.
            private_value: what the mechanism reads.
            note: kept on the line and printed on the card.

        Returns:
            The drawn value; for `NonPrivateTexts` a tuple of `SyntheticText`.

        Raises:
            PrivacyError: the label was released with other parameters, or a record was drawn for before.
            RunDirError: the ledger cannot be written; nothing was released.
        """
        parameters = json.dumps(describe(mechanism), sort_keys=True)
        name = type(mechanism).__name__
        with self._transaction():
            row = self._db.execute(
                "SELECT line_id, mechanism, parameters, result FROM lines WHERE label = ?", (label,)
            ).fetchone()
            if row is None:
                self._claim(label, mechanism, private_value)
                result = json.dumps(mechanism.sample(private_value, self._noise))
                line_id = self._insert(label, name, parameters, mechanism.events, note, result)
            else:
                line_id, result = row[0], row[3]
                if (row[1], row[2]) != (name, parameters):
                    raise PrivacyError(
                        f"{label!r} was released before with other parameters; start a new run folder"
                    )
        return _as_released(mechanism, line_id, json.loads(result))

    def lines(self) -> list[LedgerLine]:
        """Returns every line, in order, without the released values."""
        rows = self._db.execute(
            "SELECT line_id, label, mechanism, parameters, events, note, secure_noise"
            " FROM lines ORDER BY line_id"
        )
        return [
            LedgerLine(
                line_id=row[0],
                label=row[1],
                mechanism=row[2],
                parameters=json.loads(row[3]),
                events=tuple(_EVENTS[kind](**values) for kind, values in json.loads(row[4])),
                note=row[5],
                secure_noise=bool(row[6]),
            )
            for row in rows
        ]

    def _claim(self, label: str, mechanism: Mechanism[Value], private_value: Value) -> None:
        # Parallel composition holds only while no record is drawn for twice, in any release of the run.
        if not isinstance(mechanism, NoisyMax):
            return
        try:
            self._db.executemany(
                "INSERT INTO drawn VALUES (?, ?)",
                [(record_id, label) for record_id in private_value],
            )
        except sqlite3.IntegrityError:
            raise PrivacyError(
                f"{label!r} would draw a second time for a record; one draw a record and run is allowed"
            ) from None

    def _insert(
        self,
        label: str,
        name: str,
        parameters: str,
        events: Sequence[PrivacyEvent],
        note: str,
        result: str,
    ) -> int:
        costs = json.dumps([[type(event).__name__, asdict(event)] for event in events])
        cursor = self._db.execute(
            "INSERT INTO lines (label, mechanism, parameters, events, note, secure_noise, time, result)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (label, name, parameters, costs, note, int(self._noise.secure), time.time(), result),
        )
        return int(cursor.lastrowid or 0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunDirError(f"cannot write the ledger ({error}); nothing was released") from None


def _as_released(mechanism: object, line_id: int, result: object) -> object:
    if not isinstance(mechanism, NonPrivateTexts) or not isinstance(result, list):
        return result
    return tuple(
        SyntheticText(text_id=row["text_id"], text=row["text"], labels=row["labels"], paid_by=line_id)
        for row in result
    )
