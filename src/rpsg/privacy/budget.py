"""A data budget: what all runs on the same people may cost together.

A budget is a file in the user's state folder. It knows its units by keyed hashes (the key is in the file,
which only its owner can read), so a run on any file that shares a unit is found and charged. It is a
privacy filter for fully adaptive composition: mu^2 adds up while all releases are Gaussian (Smith &
Thakurta 2022), rho otherwise (Feldman & Zrnic 2021), and delta-only terms add.
"""

import hmac
import json
import math
import secrets
import sqlite3
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rpsg.errors import BudgetExceeded, ConfigError, PrivacyError, RunDirError
from rpsg.privacy.accounting import gaussian_epsilon, zcdp_epsilon
from rpsg.privacy.events import (
    ADD_REMOVE,
    DeltaEvent,
    GaussianEvent,
    NonPrivateEvent,
    PrivacyEvent,
    SampledGaussianEvent,
)
from rpsg.privacy.sqlite import transaction
from rpsg.privacy.state import private_folder
from rpsg.text import words_of
from rpsg.types import PrivateCorpus

_BUSY_SECONDS = 60.0
_SLACK = 1e-9
# Beyond it a person's text may be published outright in one of a hundred data sets.
_LARGEST_DELTA = 0.01
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS units (tag BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spending (
    run_id TEXT PRIMARY KEY, mu2 REAL, rho REAL NOT NULL, delta REAL NOT NULL, time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS outside (run_id TEXT PRIMARY KEY, time REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run costs in a filter's terms.

    Attributes:
        mu2: sum of squared Gaussian parameters; None when not all releases are Gaussian.
        rho: zCDP.
        delta: sum of delta-only terms.
    """

    mu2: float | None
    rho: float
    delta: float

    def times(self, n: int) -> "Cost":
        """Returns what `n` such runs cost."""
        return Cost(mu2=None if self.mu2 is None else n * self.mu2, rho=n * self.rho, delta=n * self.delta)

    @classmethod
    def of(cls, events: Sequence[PrivacyEvent]) -> Self:
        """Adds up events.

        Raises:
            PrivacyError: an event cannot be charged to a budget.
        """
        rho = delta = 0.0
        gaussian = True
        for event in events:
            if isinstance(event, NonPrivateEvent | SampledGaussianEvent) or event.relation != ADD_REMOVE:
                raise PrivacyError(
                    f"a {type(event).__name__} cannot be charged to a data budget, which counts units added "
                    "or removed"
                )
            if isinstance(event, DeltaEvent):
                delta += event.delta
                continue
            rho += event.rho
            gaussian = gaussian and isinstance(event, GaussianEvent)
        return cls(mu2=2 * rho if gaussian else None, rho=rho, delta=delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """What a budget holds and has spent.

    Attributes:
        name: of the data file it was made for.
        epsilon: limit.
        delta: limit.
        spent_epsilon: of all charged runs together, at `delta`.
        n_known: units and texts it knows; private.
        n_runs: runs charged.
        n_outside: runs on these data that were not charged, on demand of the user.
    """

    name: str
    epsilon: float
    delta: float
    spent_epsilon: float
    n_known: int
    n_runs: int
    n_outside: int


class Budget:
    """One data budget, a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            self._meta = dict(self._db.execute("SELECT name, value FROM meta"))
        except (sqlite3.Error, OSError) as error:
            raise RunDirError(f"cannot open the data budget {path}: {error}") from None
        if self._meta and not {"key", "name", "epsilon", "delta"} <= set(self._meta):
            raise RunDirError(f"the data budget {path} is damaged; restore it from a copy")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @classmethod
    def create(cls, corpus: PrivateCorpus, *, name: str, epsilon: float, delta: float) -> Self:
        """Begins a budget for these data.

        Raises:
            ConfigError: the limits are no privacy parameters, or the data have a budget already.
        """
        if not 0 < epsilon < math.inf or not 0 < delta < _LARGEST_DELTA:
            raise ConfigError(
                f"a budget needs a positive epsilon and a delta between 0 and {_LARGEST_DELTA:g} "
                f"(given: {epsilon:g}, {delta:g})"
            )
        for other in budgets_of(corpus):
            other.close()
            raise ConfigError(
                f"units of these data have a budget already ({other.name}); see it with: rpsg budget show"
            )
        path = private_folder("budgets") / f"{secrets.token_hex(8)}.sqlite"
        # Under another name until it is whole: an interrupted beginning leaves no budget.
        unfinished = path.with_suffix(".new")
        unfinished.touch(mode=0o600)
        budget = cls(unfinished)
        meta = {"key": secrets.token_hex(32), "name": name, "epsilon": repr(epsilon), "delta": repr(delta)}
        with budget._transaction():
            budget._db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            budget._meta = meta
            budget._learn(corpus)
        budget.close()
        unfinished.replace(path)
        return cls(path)

    @property
    def name(self) -> str:
        """The data file it was made for."""
        return str(self._meta["name"])

    def shares_unit_with(self, corpus: PrivateCorpus) -> bool:
        """Tells whether a unit or a text of these data is known here."""
        find = "SELECT 1 FROM units WHERE tag = ?"
        return any(self._db.execute(find, (tag,)).fetchone() for tag in self._tags(corpus))

    @contextmanager
    def charging(self, run_id: str, cost: Cost, corpus: PrivateCorpus) -> Iterator[None]:
        """Charges a run once, in a transaction that is committed when the block ends without an error.

        A resumed run is not charged again.

        Raises:
            BudgetExceeded: the budget does not hold it; nothing was charged.
            PrivacyError: the run was charged before with another cost.
        """
        with self._transaction():
            before = self._db.execute(
                "SELECT mu2, rho, delta FROM spending WHERE run_id = ?", (run_id,)
            ).fetchone()
            if before is not None:
                if before != (cost.mu2, cost.rho, cost.delta):
                    raise PrivacyError("this run was charged to the data budget with another cost before")
                self._learn(corpus)
                yield
                return
            after = self._epsilon(cost)
            if after > float(self._meta["epsilon"]) * (1 + _SLACK):
                raise BudgetExceeded(
                    f"the data budget of {self.name} holds epsilon {float(self._meta['epsilon']):g} at delta "
                    f"{float(self._meta['delta']):g}; with this run it would be {after:.4g}. Nothing was "
                    "drawn: ask for a smaller epsilon, or see what was spent with: rpsg budget show"
                )
            self._db.execute(
                "INSERT INTO spending VALUES (?, ?, ?, ?, ?)",
                (run_id, cost.mu2, cost.rho, cost.delta, time.time()),
            )
            self._learn(corpus)
            yield

    def would_be(self, cost: Cost) -> float:
        """Returns the epsilon spent if this cost were charged too; charges nothing."""
        return self._epsilon(cost)

    def note_outside(self, run_id: str) -> int:
        """Remembers a run that is not charged; returns how many there are."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO outside VALUES (?, ?)", (run_id, time.time()))
        return self.n_outside

    @property
    def n_outside(self) -> int:
        """Runs on these data that were not charged."""
        return int(self._db.execute("SELECT COUNT(*) FROM outside").fetchone()[0])

    def state(self) -> BudgetState:
        """Returns what was spent."""
        n_known, n_runs = (
            int(self._db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
            for table in ("units", "spending")
        )
        return BudgetState(
            name=self.name,
            epsilon=float(self._meta["epsilon"]),
            delta=float(self._meta["delta"]),
            spent_epsilon=self._epsilon(Cost(mu2=0.0, rho=0.0, delta=0.0)),
            n_known=n_known,
            n_runs=n_runs,
            n_outside=self.n_outside,
        )

    def _epsilon(self, cost: Cost) -> float:
        rows = [*self._db.execute("SELECT mu2, rho, delta FROM spending"), (cost.mu2, cost.rho, cost.delta)]
        left = float(self._meta["delta"]) - sum(row[2] for row in rows)
        if left <= 0:
            return math.inf
        if all(row[0] is not None for row in rows):
            return gaussian_epsilon(math.sqrt(sum(row[0] for row in rows)), left)
        return zcdp_epsilon(sum(row[1] for row in rows), left)

    def _learn(self, corpus: PrivateCorpus) -> None:
        self._db.executemany("INSERT OR IGNORE INTO units VALUES (?)", ((tag,) for tag in self._tags(corpus)))

    def _tags(self, corpus: PrivateCorpus) -> Iterator[bytes]:
        # A unit is known by its name, where the data name units, and by its texts: another file may hold
        # the same texts without the names.
        key = bytes.fromhex(self._meta["key"])
        seen: set[str] = set()
        for record in corpus.records:
            if corpus.has_units and record.unit_id not in seen:
                seen.add(record.unit_id)
                yield hmac.digest(key, b"unit\0" + _plain(record.unit_id).encode(), "sha256")
            yield hmac.digest(key, b"text\0" + _plain(record.text).encode(), "sha256")

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._db, what="the data budget", otherwise="nothing was charged")


def _plain(text: str) -> str:
    """Words alone: case, spaces, punctuation, spelling of accents and invisible signs do not count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    visible = "".join(sign for sign in folded if unicodedata.category(sign) != "Cf")
    return " ".join(words_of(visible)) or visible.strip()


def all_budgets() -> list[Budget]:
    """Opens every budget of this user."""
    return [Budget(path) for path in sorted(private_folder("budgets").glob("*.sqlite"))]


def budgets_of(corpus: PrivateCorpus) -> list[Budget]:
    """Opens the budgets that share a unit with these data."""
    found = []
    for budget in all_budgets():
        if budget.shares_unit_with(corpus):
            found.append(budget)
        else:
            budget.close()
    return found


def refuse_uncharged(corpus: PrivateCorpus) -> None:
    """Refuses a run without end-to-end differential privacy on data that have a budget.

    Raises:
        BudgetExceeded: the data have a budget.
    """
    for budget in budgets_of(corpus):
        budget.close()
        raise BudgetExceeded(
            f"these data share units with the data budget of {budget.name}, and a run without end-to-end "
            "differential privacy has no finite cost to charge. To run all the same, add --outside-budget: "
            "the card of this and of every later run on these data will say so"
        )


def note_outside(corpus: PrivateCorpus, run_id: str) -> int | None:
    """Remembers, in every budget of these data, a run that is not charged.

    Returns:
        Runs on these data that were not charged, this one included; None without a budget.
    """
    found = budgets_of(corpus)
    try:
        return max((budget.note_outside(run_id) for budget in found), default=None)
    finally:
        for budget in found:
            budget.close()


def charge(corpus: PrivateCorpus, run_id: str, events: Sequence[PrivacyEvent]) -> int | None:
    """Charges all that an end-to-end run will release to every budget of its data, before it begins.

    Returns:
        Runs on these data that were not charged; None without a budget.

    Raises:
        BudgetExceeded: a budget does not hold the run; then none was charged.
    """
    found = budgets_of(corpus)
    try:
        # All or none: every budget's transaction stays open until each of them holds the run.
        with ExitStack() as stack:
            for budget in found:
                stack.enter_context(budget.charging(run_id, Cost.of(events), corpus))
        return max((budget.n_outside for budget in found), default=None)
    finally:
        for budget in found:
            budget.close()


def to_json(states: Sequence[BudgetState]) -> str:
    """Returns budgets as JSON; an infinite epsilon is null."""
    rows = [
        {
            "name": item.name,
            "epsilon": item.epsilon,
            "delta": item.delta,
            "spent_epsilon": None if math.isinf(item.spent_epsilon) else item.spent_epsilon,
            "units_and_texts": item.n_known,
            "runs": item.n_runs,
            "outside": item.n_outside,
        }
        for item in states
    ]
    return json.dumps(rows, indent=2)
