"""Figures with the intervals of one run each, for the finished cells of a benchmark; beside them its attacks.

`rpsg bench` gives means and intervals over seeds. With one seed there are none, so each release is judged
again as `rpsg evaluate` does, whose intervals are over texts (half of them drawn ten times).

    rpsg bench benchmarks/configs/guarantees.yaml -o DIR
    python benchmarks/guarantees.py benchmarks/configs/guarantees.yaml DIR [SEED]
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from rpsg import registry
from rpsg.bench.check import split
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.evaluate.run import evaluate_run, sample_of
from rpsg.pipeline import load_corpus
from rpsg.report.sources import read_rows
from rpsg.scores import Score, TextSample

SHOWN = (
    "frechet_distance", "coverage", "recall", "squared_mmd", "self_bleu", "distinct_2", "next_word_accuracy",
)  # fmt: skip
ATTACKS = (
    "membership: AUC, combined", "membership: p, all attacks jointly", "leaks: members disclosed",
    "leaks: rank of the seed", "leaks: rank of the seed, where nothing leaked",
)  # fmt: skip


def main(config: Path, folder: Path, seed: int) -> None:
    bench = BenchConfig.load(config)
    for data in bench.data:
        print(f"\n{data}, seed {seed}\n| release | texts | {' | '.join((*SHOWN, *ATTACKS))} | verdict |")
        print("|---" * (len(SHOWN) + len(ATTACKS) + 3) + "|")
        for cell in cells_of(bench):
            kept = folder / "cells" / f"{cell.name}.json"
            if (cell.data, cell.seed) == (data, seed) and kept.exists():
                print(
                    row_of(bench, cell, folder / "runs" / cell.name, json.loads(kept.read_text())), flush=True
                )


def row_of(bench: BenchConfig, cell: Cell, run: Path, kept: Mapping[str, object]) -> str:
    scores, n_texts = judge(bench, cell, run)
    figures = kept["figures"]
    assert isinstance(figures, Mapping)
    attacks = [f"{figures[name]:.3g}" if name in figures else "-" for name in ATTACKS]
    name = cell.method if cell.epsilon is None else f"{cell.method}, epsilon {cell.epsilon:g}"
    shown = [show(scores[item]) if item in scores else "-" for item in SHOWN]
    return f"| {name} | {n_texts} | {' | '.join((*shown, *attacks))} | {kept['verdict']} |"


def judge(bench: BenchConfig, cell: Cell, run: Path) -> tuple[dict[str, Score], int]:
    config = cell.run_config(run)
    given, held_out = split(bench, load_corpus(config), cell.seed)
    texts = tuple(row["text"] or "" for row in read_rows(run / "release"))
    samples = {
        "real": sample_of(given), "holdout": sample_of(held_out), "synthetic": TextSample(texts=texts),
    }  # fmt: skip
    found = evaluate_run(
        run,
        samples,
        embedder=registry.embedder(config.models.embed),
        labels=[],
        language_model=bench.language_model,
        seed=config.seed,
    )
    return {score.name: score for _, score in found.scores}, len(texts)


def show(score: Score) -> str:
    if score.value is None:
        return "-"
    interval = "" if score.low is None else f" ({score.low:.2g} to {score.high:.2g})"
    real = "" if score.reference is None else f"; real {score.reference:.3g}"
    return f"{score.value:.3g}{interval}{real}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
