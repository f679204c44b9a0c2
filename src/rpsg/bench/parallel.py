"""Cells side by side: each in a process of its own, as many as the machine's memory holds."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from rpsg.bench.cells import ended
from rpsg.bench.check import check_bench
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.bench.outcomes import Outcome, keep_outcome, make_folder, read_outcome, read_outcomes

# Before a cell has finished nobody knows what one takes; the embedded models take about this.
_FIRST_GUESS = 6 << 30
_POLL_SECONDS = 0.2


def run_side_by_side(
    config_file: Path,
    folder: Path,
    n_jobs: int,
    *,
    on_cell: Callable[[Cell, int, int], None] = lambda *_: None,
) -> list[Outcome]:
    """Runs what is not done yet; a cell starts when the free memory holds the largest one seen so far.

    A cell is the same alone and beside others, but for its seconds: the processes share the cores evenly.

    Args:
        config_file: of the benchmark.
        folder: for run folders and outcomes.
        n_jobs: most cells at a time.
        on_cell: told before each cell: the cell, its number from 0, and how many there are.

    Raises:
        ConfigError: the benchmark's settings are not allowed.
        DataError: a data set cannot be read, or is too small.
        RunDirError: the folder holds cells of another benchmark, or is none.
    """
    config = BenchConfig.load(config_file)
    cells, made_of = cells_of(config), check_bench(config)
    make_folder(folder)
    kept = read_outcomes(folder, made_of)
    jobs = _Jobs(config_file, folder, n_jobs, made_of)
    try:
        for number, cell in enumerate(cells):
            found = kept.get(cell.name)
            if found is None or found.state == "failed":
                jobs.wait_for_room()
                on_cell(cell, number, len(cells))
                jobs.start(cell)
        jobs.wait_for_all()
    finally:
        jobs.stop()
    return list(read_outcomes(folder, made_of).values())


class _Jobs:
    def __init__(self, config_file: Path, folder: Path, n_jobs: int, made_of: Mapping[str, str]) -> None:
        self._command = ["bench", str(config_file), "-o", str(folder), "--quiet", "--cell"]
        self._folder = folder
        self._n_jobs = n_jobs
        self._made_of = made_of
        self._running: list[tuple[Cell, psutil.Popen]] = []
        self._largest = 0

    def start(self, cell: Cell) -> None:
        threads = max(1, (os.cpu_count() or 1) // self._n_jobs)
        # An outcome of before must not pass for one of this process.
        (self._folder / "cells" / f"{cell.name}.json").unlink(missing_ok=True)
        process = psutil.Popen(
            [sys.executable, "-m", "rpsg", *self._command, cell.name],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._running.append((cell, process))

    def wait_for_room(self) -> None:
        while len(self._running) >= self._n_jobs or not _fits(self._sizes(), self._largest, _free()):
            self._collect()

    def wait_for_all(self) -> None:
        while self._running:
            self._collect()

    def stop(self) -> None:
        for _, process in self._running:
            process.terminate()
        for _, process in self._running:
            process.wait()

    def _sizes(self) -> list[int]:
        sizes = []
        for _, process in self._running:
            try:
                sizes.append(process.memory_info().rss)
            except psutil.Error:  # just ended
                sizes.append(0)
        self._largest = max([self._largest, *sizes])
        return sizes

    def _collect(self) -> None:
        time.sleep(_POLL_SECONDS)
        self._sizes()
        for cell, process in list(self._running):
            status = process.poll()
            if status is None:
                continue
            self._running.remove((cell, process))
            if read_outcome(self._folder, cell.name) is None:
                why = f"its process ended with status {status} and left no outcome (out of memory?)"
                keep_outcome(self._folder, cell, ended(cell, why), self._made_of[cell.name])


def _free() -> int:
    return int(psutil.virtual_memory().available)


def _fits(running: Sequence[int], largest: int, free: int) -> bool:
    """Says whether one more fits when those that run grow to the size of the largest one seen."""
    need = max(largest, _FIRST_GUESS)
    still_to_come = sum(max(0, need - size) for size in running)
    return not running or free - still_to_come >= need
