"""Runs the cells of a benchmark one after another, and judges each against the same people."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from rpsg.bench.check import check_bench, split
from rpsg.bench.judge import Judgement, judge_release
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.bench.outcomes import Outcome, State, keep_outcome, make_folder, read_outcomes
from rpsg.errors import ConfigError, RpsgError
from rpsg.llm.calls import count_replies
from rpsg.pipeline import load_corpus, run
from rpsg.privacy.card_file import read_card
from rpsg.result import RunResult
from rpsg.rundir import write_json
from rpsg.types import Progress


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
        DataError: a data set cannot be read, or is too small.
        RunDirError: the folder holds cells of another benchmark, or is none.
    """
    cells = cells_of(config)
    if only is not None and only not in {cell.name for cell in cells}:
        raise ConfigError(f"the benchmark has no cell {only}; rpsg bench CONFIG --plan names all")
    made_of = check_bench(config)
    make_folder(folder)
    kept = read_outcomes(folder, made_of)
    outcomes = []
    for number, cell in enumerate(cells):
        if only not in (None, cell.name):
            continue
        found = kept.get(cell.name)
        if found is None or found.state == "failed":
            on_cell(cell, number, len(cells))
            found = _run_cell(config, cell, folder, on_progress)
            found = keep_outcome(folder, cell, found, made_of[cell.name])
        outcomes.append(found)
    return outcomes


def ended(cell: Cell, reason: str) -> Outcome:
    """Returns what became of a cell that failed."""
    return _outcome(cell, "failed", reason=reason)


def _run_cell(
    config: BenchConfig, cell: Cell, folder: Path, on_progress: Callable[[Progress], None]
) -> Outcome:
    try:
        run_folder = folder / "runs" / cell.name
        settings = cell.run_config(run_folder)
        given, held_out = split(config, load_corpus(settings), cell.seed)
        is_new = not run_folder.exists()
        result = run(settings, given, on_progress=on_progress)
        costs = _costs(result, folder / "costs" / f"{cell.name}.json", is_new=is_new)
        if not result.complete:
            reason = f"{len(result.texts)} of {cell.n} texts"
            return _outcome(cell, "short", reason=reason, result=result, costs=costs)
        vectors = folder / "vectors"
        judged = judge_release(config, settings, result, given, held_out, vectors=vectors)
        return _outcome(cell, "done", result=result, judged=judged, costs=costs)
    except RpsgError as error:
        return ended(cell, str(error))
    except Exception as error:  # noqa: BLE001 (one cell must not end the others; a message may quote texts)
        return ended(cell, f"a bug: {type(error).__name__}")


def _costs(result: RunResult, path: Path, *, is_new: bool) -> dict[str, float]:
    """Returns what a run took for 1,000 texts; kept, as a run that is finished no longer knows it."""
    if path.exists():
        kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    # Of a run that was stopped only the last part has been timed.
    if not is_new or not result.texts:
        return {}
    spent = {
        "seconds": result.counts.get("seconds", 0),
        "model calls": count_replies(result.folder / "private/calls.sqlite"),
        "tokens written": result.counts.get("tokens written", 0),
    }
    costs = {name: 1000 * float(value) / len(result.texts) for name, value in spent.items()}
    write_json(path, costs)
    return costs


def _outcome(
    cell: Cell,
    state: State,
    *,
    reason: str = "",
    result: RunResult | None = None,
    judged: Judgement | None = None,
    costs: Mapping[str, float] | None = None,
) -> Outcome:
    card_epsilon = None
    if result is not None:
        card, _ = read_card(result.folder / "release/privacy_card.json")
        card_epsilon = card.figures[0].epsilon if card.figures else None
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
        better=judged.better if judged else {},
        costs=costs or {},
    )
