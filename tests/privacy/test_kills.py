"""Kills processes at random moments while they release, and looks at what is left.

Children come from a server process that has the libraries loaded and has drawn nothing, so a kill costs
little. A child writes down what a release returned after it returned, as a user would see it.
"""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from kill_children import (
    COUNT,
    ONE_RUN,
    charge_until_refused,
    mechanism,
    people,
    private_value,
    read_lines,
    release_until_killed,
)

from rpsg.privacy.accounting import gaussian_epsilon
from rpsg.privacy.budget import Budget
from rpsg.privacy.ledger import Ledger
from rpsg.privacy.mechanisms import GRID_STEPS

SMALL, FULL = 25, 200


def start(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rpsg.privacy.budget", "rpsg.privacy.ledger", "opendp.prelude", "scipy"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def kill_after(process: ForkServerProcess, seconds: float) -> None:
    time.sleep(seconds)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


class Aftermath:
    """What is found after each kill, compared with all that was seen before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._values: dict[str, object] = {}
        self.found: Counter[str] = Counter()

    def look(self) -> None:
        seen = dict(read_lines(self._folder / "seen"))  # type: ignore[arg-type]
        draws = [tuple(line) for line in read_lines(self._folder / "drawn")]  # type: ignore[arg-type]
        # Opening verifies the chain, and its head in the user's state folder.
        with Ledger.open(self._folder / "ledger.sqlite") as ledger:
            lines = ledger.lines()
            labels = [line.label for line in lines]
            assert len(labels) == len(set(labels))
            # Everything seen is paid for, in order, and besides it at most the release that was cut off.
            assert labels[: len(seen)] == list(seen) and len(labels) <= len(seen) + 1
            assert [line.events for line in lines] == [mechanism(label).events for label in labels]
            committed = {
                label: seen.get(label) or ledger.release(label, COUNT, private_value(label, other=True))  # type: ignore[arg-type]
                for label in labels
                if label.startswith("vote")
            }
            self._replay_newest(ledger, seen)
        self._never_changes({**seen, **committed})
        self._classify(draws, committed, cut_off=[label.split()[0] for label in labels[len(seen) :]])

    def _replay_newest(self, ledger: Ledger, seen: dict[str, object]) -> None:
        # Other private values under a label that was seen: what was seen is what counts.
        for label in list(seen)[-2:]:
            again = ledger.release(label, mechanism(label), private_value(label, other=True))  # type: ignore[arg-type]
            assert again == seen[label]

    def _never_changes(self, values: dict[str, object]) -> None:
        assert {label: values[label] for label in self._values} == self._values
        self._values = values

    def _classify(
        self, draws: list[tuple[int, ...]], committed: dict[str, object], *, cut_off: list[str]
    ) -> None:
        # A vote is on the ledger if and only if one draw of it was committed; other draws cost nothing.
        kept = {tuple(round(value * GRID_STEPS) for value in values) for values in committed.values()}  # type: ignore[attr-defined]
        assert kept <= set(draws) and len(draws) == len(set(draws))
        self.found["draws that nobody saw and nobody paid for"] = len(draws) - len(kept)
        self.found["releases"] = len(self._values)
        self.found["votes committed and not yet seen"] += cut_off.count("vote")
        self.found["choices paid for and not yet whole"] += cut_off.count("choice")
        self.found["kills"] += 1


def kill_often(folder: Path, n_kills: int) -> Counter[str]:
    aftermath = Aftermath(folder)
    times = random.Random(os.urandom(8))
    for _ in range(n_kills):
        child = start(release_until_killed, folder, os.environ["XDG_STATE_HOME"])
        kill_after(child, times.uniform(0.0, 0.6))
        aftermath.look()
    return aftermath.found


def test_random_kills_lose_nothing_and_draw_nothing_twice(tmp_path: Path) -> None:
    found = kill_often(tmp_path, SMALL)
    print(dict(found))
    assert found["kills"] == SMALL and found["releases"] > 3


@pytest.mark.prove
def test_two_hundred_random_kills(tmp_path: Path, record_proof: Callable[..., Any]) -> None:
    found = kill_often(tmp_path, FULL)
    # A proof that never hit the delicate moments would prove nothing.
    missed = [name for name, count in found.items() if count == 0]
    record_proof("random kills of the ledger", dict(found), missed=missed)
    assert missed == []


def kill_spenders(folder: Path, n_kills: int) -> tuple[Budget, set[str]]:
    # 60 charges fit; the limit is that of the Gaussian composition of 60, and not of 61.
    limit = gaussian_epsilon(ONE_RUN.mu * 60**0.5, 1e-6)
    budget = Budget.create(people(), name="posts.csv", epsilon=limit, delta=1e-6)
    files = [folder / name for name in ("a", "b")]
    times = random.Random(os.urandom(8))
    for _ in range(n_kills):
        children = [start(charge_until_refused, budget.path, file) for file in files]
        time.sleep(times.uniform(0.0, 0.15))
        for child in children:
            child.kill()
            child.join(60)
        seen = {str(line) for file in files for line in read_lines(file)}
        assert len(seen) <= budget.state().n_runs <= 60
    children = [start(charge_until_refused, budget.path, file) for file in files]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    return budget, {str(line) for file in files for line in read_lines(file)}


@pytest.mark.parametrize("n_kills", [0, 3])
def test_two_processes_spend_a_shared_budget_to_the_end_and_no_further(tmp_path: Path, n_kills: int) -> None:
    budget, seen = kill_spenders(tmp_path, n_kills)
    assert budget.state().n_runs == 60 >= len(seen)
    assert {name.split()[0] for name in seen} == {"a", "b"}
    assert budget.state().spent_epsilon <= budget.state().epsilon * (1 + 1e-9)
