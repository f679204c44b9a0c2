"""Runs the cells of a benchmark one after another, and judges each against the same people."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rpsg import data, registry
from rpsg.audit.membership import membership_findings, membership_scores
from rpsg.audit.pool import Pool
from rpsg.audit.split import game_of
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.errors import DataError, RpsgError
from rpsg.evaluate.run import evaluate_run, sample_of
from rpsg.pipeline import load_corpus, run
from rpsg.privacy.card_file import read_card
from rpsg.result import RunResult
from rpsg.rng import Streams
from rpsg.rundir import write_json
from rpsg.scores import TextSample
from rpsg.types import PrivateCorpus, Progress

# Chosen in advance, not by what they find: of copied words, of likeness, of likelihood, and all together.
_ATTACKS = ("ngram_overlap_5", "nearest tfidf", "bigram_ratio", "combined")

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
        figures = _judge(config, cell, settings.models.embed, result, given, held_out)
        attacked, reason = _attack(cell, result, given, held_out)
        return _outcome(cell, "done", reason=reason, result=result, figures={**figures, **attacked})
    except RpsgError as error:
        return _outcome(cell, "failed", reason=str(error))
    except Exception as error:  # noqa: BLE001 (one cell must not end the others; a message may quote texts)
        return _outcome(cell, "failed", reason=f"a bug: {type(error).__name__}")


def _judge(
    config: BenchConfig,
    cell: Cell,
    embedder: str,
    result: RunResult,
    given: PrivateCorpus,
    held_out: PrivateCorpus,
) -> dict[str, float]:
    labels = [name for name in given.label_columns if _shares_values(name, result, given)]
    synthetic = TextSample(
        texts=tuple(item.text for item in result.texts),
        labels={name: tuple(item.labels.get(name, "") for item in result.texts) for name in labels},
    )
    samples = {"real": sample_of(given), "holdout": sample_of(held_out), "synthetic": synthetic}
    judged = evaluate_run(
        result.folder,
        samples,
        embedder=registry.embedder(embedder),
        labels=labels,
        language_model=config.language_model,
        seed=cell.seed,
    )
    return {f"{family}: {item.name}": item.value for family, item in judged.scores if item.value is not None}


def _attack(
    cell: Cell, result: RunResult, given: PrivateCorpus, held_out: PrivateCorpus
) -> tuple[dict[str, float], str]:
    """Returns the AUC of attacks that guess from the release who was given to the method, or why not.

    Attacks with language models are left out: they take minutes a cell.
    """
    texts = [item.text for item in result.texts]
    try:
        game = game_of(given, held_out, texts, seed=cell.seed)
        pool = Pool.of(game)
        findings = membership_findings(pool, membership_scores(pool, game))
    except DataError as error:
        return {}, f"no membership figures: {error}"
    return {
        f"membership: AUC, {item.attack.replace('_', ' ')}": item.value
        for item in findings
        if item.statistic == "AUC" and item.value is not None and item.attack in _ATTACKS
    }, ""


def _shares_values(name: str, result: RunResult, given: PrivateCorpus) -> bool:
    real = {record.labels.get(name) for record in given.records}
    return bool({item.labels.get(name) for item in result.texts} & real)


def _outcome(
    cell: Cell,
    state: State,
    *,
    reason: str = "",
    result: RunResult | None = None,
    figures: Mapping[str, float] | None = None,
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
        reason=reason,
        card_epsilon=card_epsilon,
        figures=figures or {},
        costs=costs,
    )
