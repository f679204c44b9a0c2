"""Runs the cells of a benchmark one after another, and judges each against the same people."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rpsg import data
from rpsg.bench.judge import Judgement, judge_release
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.errors import ConfigError, RpsgError, RunDirError
from rpsg.llm.calls import count_replies
from rpsg.pipeline import load_corpus, run
from rpsg.privacy.card_file import read_card
from rpsg.result import RunResult
from rpsg.rng import Streams
from rpsg.rundir import write_json
from rpsg.types import PrivateCorpus, Progress

State = Literal["done", "short", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a cell.

    Attributes:
        data: name of the data set.
        method: name in the tables.
        model: that wrote.
        epsilon: asked for.
        n: texts asked for.
        seed: of run and split.
        state: short when fewer texts were released than asked for; its figures would not compare.
        reason: why it is not done, or what could not be computed; never a text.
        card_epsilon: of the released texts as a whole, as the card has it; None where none is finite.
        verdict: of the audit; empty where there was none.
        figures: family and name of a figure, joined by ": ", to its value.
        costs: seconds, model calls and tokens for 1,000 texts.
    """

    data: str
    method: str
    model: str
    epsilon: float | None
    n: int
    seed: int
    state: State
    reason: str
    card_epsilon: float | None
    figures: Mapping[str, float]
    costs: Mapping[str, float]
    verdict: str = ""


def run_bench(
    config: BenchConfig,
    folder: Path,
    *,
    only: str | None = None,
    on_cell: Callable[[Cell, int, int], None] = lambda *_: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[Outcome]:
    """Runs what is not done yet; a cell that fails is kept as failed, and tried again the next time.

    Args:
        config: the benchmark.
        folder: for run folders and outcomes; readable by its owner only, since figures are computed from
            private texts without noise.
        only: the name of the one cell to run; all by default.
        on_cell: told before each cell: the cell, its number from 0, and how many there are.
        on_progress: told after every step of a run.

    Raises:
        ConfigError: the benchmark's settings are not allowed, or it has no cell of that name.
    """
    cells = cells_of(config)
    if only is not None and only not in {cell.name for cell in cells}:
        raise ConfigError(f"the benchmark has no cell {only}; rpsg bench CONFIG --plan names all")
    make_folder(folder)
    outcomes = []
    for number, cell in enumerate(cells):
        if only not in (None, cell.name):
            continue
        found = read_outcome(folder, cell)
        if found is None or found.state == "failed":
            on_cell(cell, number, len(cells))
            found = _run_cell(config, cell, folder / "runs" / cell.name, on_progress)
            keep_outcome(folder, cell, found)
        outcomes.append(found)
    return outcomes


def make_folder(folder: Path) -> None:
    """Makes a benchmark's folder, readable by its owner only."""
    (folder / "cells").mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)


def read_outcome(folder: Path, cell: Cell) -> Outcome | None:
    """Returns what became of a cell; None when it was not run yet.

    Raises:
        RunDirError: its file is not one of this version.
    """
    path = folder / "cells" / f"{cell.name}.json"
    if not path.exists():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise RunDirError(f"{path} is not of this version of rpsg; use another output folder") from None


def keep_outcome(folder: Path, cell: Cell, outcome: Outcome) -> None:
    """Writes what became of a cell."""
    write_json(folder / "cells" / f"{cell.name}.json", asdict(outcome))


def ended(cell: Cell, reason: str) -> Outcome:
    """Returns what became of a cell that failed."""
    return _outcome(cell, "failed", reason=reason)


def split(config: BenchConfig, corpus: PrivateCorpus, seed: int) -> tuple[PrivateCorpus, PrivateCorpus]:
    """Returns the people that a method is given, and those it is not: the same for every cell of a seed."""
    key = Streams(seed).key("bench split").to_bytes(8)
    return data.split_calibration(corpus, share=config.holdout, at_most=len(corpus), key=key)


def _run_cell(
    config: BenchConfig, cell: Cell, folder: Path, on_progress: Callable[[Progress], None]
) -> Outcome:
    try:
        settings = cell.run_config(folder)
        given, held_out = split(config, load_corpus(settings), cell.seed)
        result = run(settings, given, on_progress=on_progress)
        if not result.complete:
            reason = f"{len(result.texts)} of {cell.n} texts"
            return _outcome(cell, "short", reason=reason, result=result)
        judged = judge_release(config, settings, result, given, held_out)
        return _outcome(cell, "done", result=result, judged=judged)
    except RpsgError as error:
        return ended(cell, str(error))
    except Exception as error:  # noqa: BLE001 (one cell must not end the others; a message may quote texts)
        return ended(cell, f"a bug: {type(error).__name__}")


def _outcome(
    cell: Cell,
    state: State,
    *,
    reason: str = "",
    result: RunResult | None = None,
    judged: Judgement | None = None,
) -> Outcome:
    costs: dict[str, float] = {}
    card_epsilon = None
    if result is not None:
        card, _ = read_card(result.folder / "release/privacy_card.json")
        card_epsilon = card.figures[0].epsilon if card.figures else None
        if result.texts:
            spent = {
                "seconds": result.counts.get("seconds", 0),
                "model calls": count_replies(result.folder / "private/calls.sqlite"),
                "tokens written": result.counts.get("tokens written", 0),
            }
            costs = {name: 1000 * float(value) / len(result.texts) for name, value in spent.items()}
    return Outcome(
        data=cell.data,
        method=cell.method,
        model=cell.model,
        epsilon=cell.epsilon,
        n=cell.n,
        seed=cell.seed,
        state=state,
        reason=judged.reason if judged else reason,
        card_epsilon=card_epsilon,
        verdict=judged.verdict if judged else "",
        figures=judged.figures if judged else {},
        costs=costs,
    )
