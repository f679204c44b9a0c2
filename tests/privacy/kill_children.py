"""What the children of test_kills.py do until they are killed. Few imports: a child must start fast."""

import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import numpy as np

from rpsg.errors import BudgetExceeded
from rpsg.privacy import ledger as ledger_module
from rpsg.privacy.budget import Budget, Cost
from rpsg.privacy.events import ADD_REMOVE, GaussianEvent
from rpsg.privacy.ledger import Ledger
from rpsg.privacy.mechanisms import GaussianSum, NoisyMax, PrivateRows
from rpsg.privacy.noise import SecureNoise
from rpsg.types import PrivateCorpus, PrivateRecord

N_ITEMS = 200
# Parts so small that many kills fall between the first and the last commit of a choice.
N_RECORDS, DRAWS_AT_ONCE = 200, 50
COUNT = GaussianSum(noise_multiplier=3.0, n_items=N_ITEMS)
CHOICE = NoisyMax(epsilon=2.0, n_candidates=3)
ONE_RUN = GaussianEvent(sensitivity_l2=1.0, std=10.0, relation=ADD_REMOVE)


class WitnessedNoise(SecureNoise):
    """The secure source; writes down every draw as soon as it is made, before it can be committed."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file

    def gaussian(self, values: np.ndarray, std: float) -> np.ndarray:
        drawn = super().gaussian(values, std)
        write_line(self._file, drawn.tolist())
        return drawn


def write_line(file: TextIO, value: object) -> None:
    file.write(json.dumps(value) + "\n")
    file.flush()


def read_lines(path: Path) -> list[object]:
    """Returns the whole lines of a file; a kill may have cut the last one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def mechanism(label: str) -> GaussianSum | NoisyMax:
    return CHOICE if label.startswith("choice") else COUNT


def private_value(label: str, *, other: bool = False) -> PrivateRows | Mapping[str, list[float]]:
    """Returns the private value released under a label; `other` gives one that would draw differently."""
    if label.startswith("choice"):
        return {f"{label}, {i}": [0.9, 0.2, 0.5] if other else [0.2, 0.9, 0.5] for i in range(N_RECORDS)}
    n = 40 if other else 90
    return PrivateRows(units=np.arange(n), items=np.arange(n) % N_ITEMS, weights=np.ones(n))


def labels_from(first: int) -> Iterator[str]:
    """Names the releases of a run from the first one on: every eighth is a choice for many records."""
    while True:
        yield f"choice {first}" if first % 8 == 5 else f"vote {first}"
        first += 1


def release_until_killed(folder: Path, state: str) -> None:
    os.environ["XDG_STATE_HOME"] = state
    ledger_module._DRAWS_AT_ONCE = DRAWS_AT_ONCE
    n_seen = len(read_lines(folder / "seen"))
    with (folder / "drawn").open("a") as drawn, (folder / "seen").open("a") as seen:
        ledger = Ledger.open(folder / "ledger.sqlite", noise=WitnessedNoise(drawn))
        for label in labels_from(n_seen):
            released = ledger.release(label, mechanism(label), private_value(label))  # type: ignore[arg-type]
            write_line(seen, [label, released])


def people() -> PrivateCorpus:
    records = tuple(
        PrivateRecord(record_id=f"r{i}", unit_id=f"u{i}", text=f"story {i} about rent") for i in range(20)
    )
    return PrivateCorpus(records=records, has_units=True)


def charge_until_refused(budget: Path, seen: Path) -> None:
    corpus, name = people(), seen.name
    n_seen = len(read_lines(seen))
    with seen.open("a") as file:
        charged = Budget(budget)
        while True:
            run_id = f"{name} {n_seen}"
            try:
                with charged.charging(run_id, Cost.of([ONE_RUN]), corpus):
                    pass
            except BudgetExceeded:
                return
            write_line(file, run_id)
            n_seen += 1
            # Lets the other process have its turn.
            time.sleep(random.uniform(0.0, 0.01))
