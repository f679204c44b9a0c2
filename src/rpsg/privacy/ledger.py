"""The one door: every value that stops being private goes through `Ledger.release`.

A draw is made in memory and committed together with its ledger entry; only then is it returned. A
draw that was not committed was seen by nobody and costs nothing; one that was is replayed when the
run is resumed, never drawn again. Entries are hash-chained, and the chain's head is kept elsewhere too.
"""

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

from rpsg.errors import BudgetExceeded, PrivacyError, RunDirError
from rpsg.privacy import state
from rpsg.privacy.accounting import compose
from rpsg.privacy.events import PrivacyEvent
from rpsg.privacy.hashes import chain_hash, claim_hash
from rpsg.privacy.lines import LedgerLine, body_of, line_of, require_same
from rpsg.privacy.mechanisms import Mechanism, NoisyMax
from rpsg.privacy.noise import NoiseSource, SecureNoise
from rpsg.privacy.plain import as_released
from rpsg.privacy.sqlite import transaction

Value = TypeVar("Value")
_BUSY_SECONDS = 60.0
_DRAWS_AT_ONCE = 1000
_SLACK = 1e-9
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    entry_id INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('release', 'draws', 'steps', 'card')),
    body TEXT NOT NULL,
    result TEXT,
    hash TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS one_release ON entries (label) WHERE kind = 'release';
CREATE TABLE IF NOT EXISTS claimed (record_id TEXT PRIMARY KEY, label TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What all releases of a ledger together may cost, for one unit added or removed."""

    epsilon: float
    delta: float


class Ledger:
    """All releases of a run, in one SQLite file."""

    def __init__(self, db: sqlite3.Connection, noise: NoiseSource, limit: Limit | None) -> None:
        self._db = db
        self._noise = noise
        self._limit = limit
        self._id = self._start = self._name = ""

    @classmethod
    def open(
        cls, path: Path, *, noise: NoiseSource | None = None, limit: Limit | None = None, binding: str = ""
    ) -> Self:
        """Opens or begins a ledger, readable by its owner only.

        Args:
            path: the file.
            noise: where noise comes from; the secure source unless a test gives another.
            limit: most that all releases may cost together; None where epsilon is infinite anyway.
            binding: what the ledger belongs to, for example a hash of configuration and data.

        Raises:
            RunDirError: the file cannot be opened.
            PrivacyError: the chain is broken, cut or older than it was, or belongs to something else.
        """
        try:
            path.touch(mode=0o600)
            db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise RunDirError(f"cannot open the ledger {path}: {error}") from None
        ledger = cls(db, noise if noise is not None else SecureNoise(), limit)
        try:
            with ledger._transaction():
                ledger._begin(binding)
                ledger._check_chain()
            ledger._keep_head()
        except BaseException:
            db.close()
            raise
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    # --- releasing -----------------------------------------------------------------------------

    def release(
        self,
        label: str,
        mechanism: Mechanism[Value],
        private_value: Value,
        *,
        note: str = "",
        of: Sequence[str] = (),
    ) -> object:
        """Releases a value: draws, commits draw and ledger entry in one transaction, returns.

        A choice for many records reserves its whole cost first and commits its draws in parts.

        Args:
            label: names the release; a label released before returns what was drawn then.
            mechanism: what to draw and what it costs.
            private_value: what the mechanism reads.
            note: kept on the line and printed on the card.
            of: what the places of the value stand for, such as the candidates of a vote. The line keeps
                their hash, so that a draw is never taken for one about other texts.

        Returns:
            The drawn value; for `NonPrivateTexts` and `PaidTexts` a tuple of `SyntheticText`.

        Raises:
            PrivacyError: the label was released with other parameters or of other texts, or a record was
                drawn for before.
            BudgetExceeded: the release would cost more than the limit leaves; nothing was drawn.
            RunDirError: the ledger cannot be written; nothing was released.
        """
        if isinstance(mechanism, NoisyMax):
            return self._release_choices(
                label, mechanism, cast("Mapping[str, Sequence[float]]", private_value), note
            )
        body = body_of(mechanism, note=note, of=of, secure=self._noise.secure)
        with self._transaction():
            self._check_chain()
            found = self._find(label, body)
            if found is None:
                self._check_limit(mechanism.events)
                result = json.dumps(mechanism.sample(private_value, self._noise))
                found = self._append(label, "release", body, result), result
        self._keep_head()
        return as_released(mechanism, found[0], json.loads(found[1] or "null"))

    def _release_choices(
        self, label: str, mechanism: NoisyMax, private_value: Mapping[str, Sequence[float]], note: str
    ) -> dict[str, int]:
        body = body_of(mechanism, note=note, secure=self._noise.secure)
        begun = {**body, "claimed": claim_hash(private_value)}
        with self._transaction():
            self._check_chain()
            if self._find(label, begun) is None:
                self._check_limit(mechanism.events)
                self._claim(label, private_value)
                self._append(label, "release", begun, None)
            waiting = self._undrawn(label, private_value)
        for start in range(0, len(waiting), _DRAWS_AT_ONCE):
            part = {
                record_id: private_value[record_id] for record_id in waiting[start : start + _DRAWS_AT_ONCE]
            }
            with self._transaction():
                # Another process may have drawn them in the meantime.
                still = set(self._undrawn(label, part))
                drawn = mechanism.sample({name: part[name] for name in part if name in still}, self._noise)
                if still:
                    body = {"secure_noise": self._noise.secure}
                    self._append(label, "draws", body, json.dumps(drawn))
        self._keep_head()
        everything = self._drawn(label)
        return {record_id: everything[record_id] for record_id in private_value}

    def lines(self) -> list[LedgerLine]:
        """Returns every release, in order, without the released values."""
        rows = self._db.execute("SELECT label, body FROM entries WHERE kind = 'release' ORDER BY entry_id")
        found = [(label, json.loads(body)) for label, body in rows]
        draws = self._db.execute("SELECT label, body FROM entries WHERE kind IN ('draws', 'steps')")
        unsafe = {label for label, body in draws if not json.loads(body)["secure_noise"]}
        return [
            line_of(i, label, {**body, "secure_noise": body["secure_noise"] and label not in unsafe})
            for i, (label, body) in enumerate(found, start=1)
        ]

    def keep_identity(self, run_id: str) -> None:
        """Remembers, outside the run folder, which ledger a run has; refuses another one.

        Raises:
            PrivacyError: the run had another ledger.
        """
        hashes = self._verify()
        state.check_head(f"run {run_id}", self._id, hashes)
        state.keep_head(f"run {run_id}", self._id, hashes)

    def attest(self, facts: Mapping[str, object], label: str = "card") -> None:
        """Puts facts into the chain: what the card is computed from, so that it can be compared with it."""
        with self._transaction():
            self._check_chain()
            if self.attested(label) != facts:
                self._append(label, "card", facts, None)
        self._keep_head()

    def attested(self, label: str = "card") -> dict[str, object] | None:
        """Returns the facts that were last put under a label, or None."""
        query = "SELECT body FROM entries WHERE kind = 'card' AND label = ? ORDER BY entry_id DESC LIMIT 1"
        row = self._db.execute(query, (label,)).fetchone()
        return cast("dict[str, object]", json.loads(row[0])) if row else None

    # --- for `rpsg.privacy.training` -----------------------------------------------------------

    @property
    def noise(self) -> NoiseSource:
        """Where noise comes from; for mechanisms of this package only."""
        return self._noise

    def reserve(self, label: str, mechanism: Mechanism[Value], *, note: str = "") -> None:
        """Commits the whole cost of something that is drawn in steps, before the first of them.

        Raises:
            PrivacyError: the label was reserved with other parameters.
            BudgetExceeded: it would cost more than the limit leaves; nothing was drawn.
        """
        body = body_of(mechanism, note=note, secure=self._noise.secure)
        with self._transaction():
            self._check_chain()
            if self._find(label, body) is None:
                self._check_limit(mechanism.events)
                self._append(label, "release", body, None)
        self._keep_head()

    def keep_step(self, label: str, number: int, digest: str) -> None:
        """Commits that step `number` was taken and led to a state of this hash.

        Raises:
            PrivacyError: another step is next.
        """
        with self._transaction():
            self._check_chain()
            if number != self.last_step(label)[0] + 1:
                raise PrivacyError(f"step {number} of {label!r} is not the next one; resume the run")
            body = {"secure_noise": self._noise.secure, "step": number, "state": digest}
            self._append(label, "steps", body, None)
        self._keep_head()

    def last_step(self, label: str) -> tuple[int, str]:
        """Returns the number of the last committed step, 0 before the first, and the hash it led to."""
        query = "SELECT body FROM entries WHERE label = ? AND kind = 'steps' ORDER BY entry_id DESC LIMIT 1"
        row = self._db.execute(query, (label,)).fetchone()
        if row is None:
            return 0, ""
        body = json.loads(row[0])
        return int(body["step"]), str(body["state"])

    # --- inside a transaction ------------------------------------------------------------------

    def _begin(self, binding: str) -> None:
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        limit = json.dumps(asdict(self._limit) if self._limit else None)
        if not meta:
            meta = {"ledger_id": secrets.token_hex(16), "binding": binding, "limit": limit}
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        if not {"ledger_id", "binding", "limit"} <= set(meta):
            raise PrivacyError("the ledger lacks what identifies it: it was edited; restore the run folder")
        stored = json.loads(meta["limit"])
        if self._limit is None and stored is not None:
            self._limit = Limit(**stored)
        elif self._limit is not None and limit != meta["limit"]:
            raise PrivacyError("the ledger was begun with another limit; start a new run folder")
        if binding and meta["binding"] != binding:
            raise PrivacyError(
                "the ledger belongs to a run with another configuration or other data; "
                "start a new run folder, or restore this run's own ledger"
            )
        self._id = meta["ledger_id"]
        self._name = meta["binding"] or self._id
        self._start = f"{self._id}/{meta['binding']}/{meta['limit']}"

    def _check_chain(self) -> None:
        # Within the transaction: a second copy of this ledger may have gone on since it was opened.
        state.check_head(self._name, self._id, self._verify())

    def _verify(self) -> list[str]:
        """Recomputes the chain; returns its hashes."""
        last, hashes = self._start, []
        rows = self._db.execute(
            "SELECT entry_id, label, kind, body, result, hash FROM entries ORDER BY entry_id"
        )
        for number, (entry_id, label, kind, body, result, digest) in enumerate(rows, start=1):
            last = chain_hash(last, entry_id, label, kind, body, result)
            if entry_id != number or digest != last:
                raise PrivacyError(
                    f"the ledger's entry {number} does not follow from the one before: the file was edited; "
                    "restore the run folder from a copy, or start a new one"
                )
            hashes.append(last)
        return hashes

    def _find(self, label: str, body: Mapping[str, object]) -> tuple[int, str | None] | None:
        row = self._db.execute(
            "SELECT body, result, (SELECT COUNT(*) FROM entries AS e WHERE e.kind = 'release' "
            "AND e.entry_id <= entries.entry_id) FROM entries WHERE label = ? AND kind = 'release'",
            (label,),
        ).fetchone()
        if row is None:
            return None
        require_same(label, json.loads(row[0]), json.loads(json.dumps(body)))
        return int(row[2]), row[1]

    def _check_limit(self, events: Sequence[PrivacyEvent]) -> None:
        if self._limit is None:
            return
        before = [event for line in self.lines() for event in line.events]
        after = compose([*before, *events], self._limit.delta).epsilon
        if not after <= self._limit.epsilon * (1 + _SLACK):
            raise BudgetExceeded(
                f"this release would bring epsilon to {after:.4g}; the run may spend {self._limit.epsilon:g} "
                f"at delta {self._limit.delta:g}. Nothing was drawn"
            )

    def _append(self, label: str, kind: str, body: Mapping[str, object], result: str | None) -> int:
        """Adds an entry; returns the number of releases there are then."""
        row = self._db.execute("SELECT entry_id, hash FROM entries ORDER BY entry_id DESC LIMIT 1").fetchone()
        entry_id, last = (row[0] + 1, row[1]) if row else (1, self._start)
        text = json.dumps(body, sort_keys=True)
        digest = chain_hash(last, entry_id, label, kind, text, result)
        self._db.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", (entry_id, label, kind, text, result, digest)
        )
        count = self._db.execute("SELECT COUNT(*) FROM entries WHERE kind = 'release'").fetchone()
        return int(count[0])

    def _claim(self, label: str, private_value: Mapping[str, object]) -> None:
        # Parallel composition holds only while no record is drawn for twice, in any release of the run. The
        # chained draws say so too, should the table of claims have been emptied.
        drawn = self._db.execute("SELECT result FROM entries WHERE kind = 'draws'")
        again = any(not json.loads(result).keys().isdisjoint(private_value) for (result,) in drawn)
        try:
            if again:
                raise sqlite3.IntegrityError
            rows = [(name, label) for name in private_value]
            self._db.executemany("INSERT INTO claimed VALUES (?, ?)", rows)
        except sqlite3.IntegrityError:
            raise PrivacyError(
                f"{label!r} would draw a second time for a record; one draw a record and run is allowed"
            ) from None

    def _undrawn(self, label: str, private_value: Mapping[str, object]) -> list[str]:
        names = self._db.execute("SELECT record_id FROM claimed WHERE label = ?", (label,))
        claimed = {name for (name,) in names}
        found = self._db.execute("SELECT body FROM entries WHERE label = ? AND kind = 'release'", (label,))
        begun = json.loads(found.fetchone()[0])["claimed"]
        if begun != claim_hash(claimed) or not claimed.issuperset(private_value):
            raise PrivacyError(f"{label!r} was begun for other records; start a new run folder")
        done = self._drawn(label)
        return [name for name in private_value if name not in done]

    def _drawn(self, label: str) -> dict[str, int]:
        rows = self._db.execute("SELECT result FROM entries WHERE label = ? AND kind = 'draws'", (label,))
        return {name: index for (result,) in rows for name, index in json.loads(result).items()}

    # --- the file ------------------------------------------------------------------------------

    def _keep_head(self) -> None:
        hashes = [row[0] for row in self._db.execute("SELECT hash FROM entries ORDER BY entry_id")]
        state.keep_head(self._name, self._id, hashes)

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._db, what="the ledger", otherwise="nothing was released")


def read_run(path: Path) -> tuple[list[LedgerLine], dict[str, object] | None]:
    """Returns the lines of a run's ledger and what its card was computed from, after checking its chain.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the chain is broken or older than it was.
    """
    if not path.exists() or path.stat().st_size == 0:
        raise RunDirError(f"there is no ledger {path}; name the run folder")
    with Ledger.open(path) as ledger:
        return ledger.lines(), ledger.attested()
