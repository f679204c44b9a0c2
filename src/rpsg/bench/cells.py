"""Runs the cells of a benchmark one after another, and judges each against the same people."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rpsg import data
from rpsg.bench.judge import Judgement, judge_release
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.errors import RpsgError
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
        seed: of run and split.
        state: short when fewer texts were released than asked for; its figures would not compare.
        reason: why it is not done, or what could not be computed; never a text.
        card_epsilon: of the released texts as a whole, as the card has it; None where none is finite.
        verdict: of the audit; empty where there was none.
        figures: family and name of a figure, joined by ": ", to its value.
        costs: seconds and tokens for 1,000 texts.
    """

    data: str
    method: str
    model: str
    epsilon: float | None
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
    on_cell: Callable[[Cell, int, int], None] = lambda *_: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[Outcome]:
    """Runs what is not done yet; a cell that fails is kept as failed, and tried again the next time.

    Args:
        config: the benchmark.
        folder: for run folders and outcomes; readable by its owner only, since figures are computed from
            private texts without noise.
        on_cell: told before each cell: the cell, its number from 0, and how many there are.
        on_progress: told after every step of a run.

    Raises:
        ConfigError: the benchmark's settings are not allowed.
    """
    cells = cells_of(config)
    (folder / "cells").mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    outcomes = []
    for number, cell in enumerate(cells):
        path = folder / "cells" / f"{cell.name}.json"
        found = _read(path)
        if found is None or found.state == "failed":
            on_cell(cell, number, len(cells))
            found = _run_cell(config, cell, folder / "runs" / cell.name, on_progress)
            write_json(path, asdict(found))
        outcomes.append(found)
    return outcomes


def _read(path: Path) -> Outcome | None:
    return Outcome(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


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
            reason = f"{len(result.texts)} of {config.n} texts"
            return _outcome(cell, "short", reason=reason, result=result)
        judged = judge_release(config, settings, result, given, held_out)
        return _outcome(cell, "done", result=result, judged=judged)
    except RpsgError as error:
        return _outcome(cell, "failed", reason=str(error))
    except Exception as error:  # noqa: BLE001 (one cell must not end the others; a message may quote texts)
        return _outcome(cell, "failed", reason=f"a bug: {type(error).__name__}")


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
            costs = {
                name: 1000 * float(result.counts.get(count, 0)) / len(result.texts)
                for name, count in (("seconds", "seconds"), ("tokens written", "tokens written"))
            }
    return Outcome(
        data=cell.data,
        method=cell.method,
        model=cell.model,
        epsilon=cell.epsilon,
        seed=cell.seed,
        state=state,
        reason=judged.reason if judged else reason,
        card_epsilon=card_epsilon,
        verdict=judged.verdict if judged else "",
        figures=judged.figures if judged else {},
        costs=costs,
    )
