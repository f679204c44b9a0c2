"""Runs the cells of a benchmark one after another, and judges each against the same people."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Literal

from rpsg import data, registry
from rpsg.audit.pool import MIN_UNITS
from rpsg.bench.judge import Judgement, judge_release
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.errors import ConfigError, DataError, RpsgError, RunDirError
from rpsg.evaluate.metrics import chosen_metrics
from rpsg.evaluate.resampling import MIN_ROWS
from rpsg.llm.calls import count_replies
from rpsg.pipeline import load_corpus, run
from rpsg.privacy.card_file import read_card
from rpsg.result import RunResult
from rpsg.rng import Streams
from rpsg.rundir import write_json
from rpsg.scores import Better
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
        made_of: see `check_bench`.
        figures: family and name of a figure, joined by ": ", to its value.
        better: figure to its good direction.
        costs: seconds, model calls and tokens for 1,000 texts; none where the run was stopped and went on.
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
    better: Mapping[str, Better] = field(default_factory=dict)
    verdict: str = ""
    made_of: str = ""


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


def check_bench(config: BenchConfig) -> dict[str, str]:
    """Reads every data set and looks for the judges, before hours of work rather than after them.

    Returns:
        Cell name to a digest of all that its figures are made of: settings, data, people held out, judges and
        version. It tells whether two data sets are the same, so it is private.

    Raises:
        ConfigError: a judge is not known.
        DataError: a data set cannot be read, or too few texts are held out of it.
        ModelUnavailable: the files of a judge are not there.
    """
    chosen_metrics((), config.language_model)
    if config.sentiment_judge:
        registry.sentiment_model(config.sentiment_judge)
    prints: dict[str, str] = {}
    made_of = {}
    for cell in cells_of(config):
        if cell.data not in prints:
            prints[cell.data] = _check_data(config, cell)
        parts = [cell.settings, prints[cell.data], config.holdout, config.sentiment_judge]
        parts += [config.language_model, metadata.version("rpsg")]
        made_of[cell.name] = blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return made_of


def audit_warnings(config: BenchConfig) -> list[str]:
    """Says which data sets hold out too few people to attack a release."""
    first = {cell.data: cell for cell in reversed(cells_of(config))}
    warnings = []
    for name, cell in first.items():
        parts = split(config, load_corpus(cell.run_config(Path("unused"))), cell.seed)
        n_given, n_held_out = (len({record.unit_id for record in part.records}) for part in parts)
        if min(n_given, n_held_out) < MIN_UNITS:
            warnings.append(
                f"data.{name}: {n_given} people are given to a method and {n_held_out} held out, and an "
                f"audit needs {MIN_UNITS} on each side: no release is attacked, no table says what leaks. "
                "Another holdout, or more people, helps"
            )
    return warnings


def _check_data(config: BenchConfig, cell: Cell) -> str:
    corpus = load_corpus(cell.run_config(Path("unused")))
    for seed in config.seeds:
        for part, people in zip(split(config, corpus, seed), ("others", "those held out"), strict=True):
            if len(part) < MIN_ROWS:
                raise DataError(
                    f"data.{cell.data}: with holdout {config.holdout:g} and seed {seed}, {people} have "
                    f"{len(part)} texts; figures need {MIN_ROWS} of each"
                )
    return data.fingerprint(corpus)


def make_folder(folder: Path) -> None:
    """Makes a benchmark's folder, readable by its owner only.

    Raises:
        RunDirError: it cannot be made, or holds something else.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "cells").is_dir():
            raise RunDirError(f"{folder} is not empty and holds no benchmark; name another folder")
        for name in ("cells", "costs"):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise RunDirError(f"{folder} cannot be made a folder: {error.strerror}; name another") from None


def read_outcomes(folder: Path, made_of: Mapping[str, str]) -> dict[str, Outcome]:
    """Returns what became of the cells that were run.

    Args:
        folder: of the benchmark.
        made_of: what `check_bench` returned.

    Raises:
        RunDirError: one is made of something else, or not of this version.
    """
    found = {name: read_outcome(folder, name) for name in made_of}
    kept = {name: outcome for name, outcome in found.items() if outcome is not None}
    other = [name for name, outcome in kept.items() if outcome.made_of != made_of[name]]
    if other:
        raise RunDirError(
            f"{folder} holds {len(other)} cells of a benchmark with other settings, data, judges or version, "
            f"such as {other[0]}; use another output folder"
        )
    return kept


def read_outcome(folder: Path, name: str) -> Outcome | None:
    """Returns what became of a cell; None when it was not run yet.

    Raises:
        RunDirError: its file is not one of this version.
    """
    path = folder / "cells" / f"{name}.json"
    if not path.exists():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise RunDirError(f"{path} is not of this version of rpsg; use another output folder") from None


def keep_outcome(folder: Path, cell: Cell, outcome: Outcome, made_of: str) -> Outcome:
    """Writes what became of a cell, with what it was made of; returns both."""
    kept = replace(outcome, made_of=made_of)
    write_json(folder / "cells" / f"{cell.name}.json", asdict(kept))
    return kept


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
