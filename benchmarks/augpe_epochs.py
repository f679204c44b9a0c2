"""Does AUG-PE come nearer with each vote? Fréchet distance of its survivors, epoch by epoch.

Epoch 0 is one of the L random texts that were written for each one wanted. Distances are those of
`rpsg bench`, over as many texts. Means over seeds, with 95 % Student intervals of each epoch's difference
from epoch 0, seeds being pairs.

    rpsg bench benchmarks/configs/abstracts.yaml -o DIR
    python benchmarks/augpe_epochs.py benchmarks/configs/abstracts.yaml DIR
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from rpsg import registry
from rpsg.bench.check import split
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.bench.tables import Figure
from rpsg.bench.vectors import KeptVectors
from rpsg.evaluate.fidelity import fidelity_metrics
from rpsg.evaluate.run import evaluate, prepare, sample_of
from rpsg.pipeline import load_corpus
from rpsg.scores import TextSample


def main(config: Path, folder: Path) -> None:
    bench = BenchConfig.load(config)
    found: dict[tuple[str, str, float | None], list[list[float]]] = defaultdict(list)
    for cell in cells_of(bench):
        run = folder / "runs" / cell.name
        is_done = (folder / "cells" / f"{cell.name}.json").exists()
        if is_done and bench.methods[cell.method].get("method") == "augpe":
            found[cell.data, cell.method, cell.epsilon].append(distances(bench, cell, run))
    print(
        "| data | method | epsilon | seeds | epoch | Fréchet distance | less epoch 0 |\n" + "|---" * 7 + "|"
    )
    for (data, method, epsilon), seeds in found.items():
        for epoch, values in enumerate(zip(*seeds, strict=True)):
            less = Figure.of([value - own[0] for value, own in zip(values, seeds, strict=True)])
            print(
                f"| {data} | {method} | {epsilon} | {len(seeds)} | {epoch} | {Figure.of(values)} | {less} |"
            )


def distances(bench: BenchConfig, cell: Cell, run: Path) -> list[float]:
    config = cell.run_config(run)
    given, held_out = split(bench, load_corpus(config), cell.seed)
    embedder = KeptVectors(registry.embedder(config.models.embed), run.parent.parent / "vectors")
    values = []
    for epoch in range(config.augpe.epochs + 1):
        texts = read(run / f"private/generation-{epoch}.jsonl")
        # L random texts for each wanted, one after the other.
        texts = texts[:: config.augpe.variations] if epoch == 0 else texts
        samples = {
            "real": sample_of(given), "holdout": sample_of(held_out),
            "synthetic": TextSample(texts=tuple(texts)),
        }  # fmt: skip
        comparison, _ = prepare(samples, embedder=embedder, seed=cell.seed)
        ((_, score),) = evaluate(comparison, fidelity_metrics()[:1]).scores
        assert score.value is not None
        values.append(score.value)
    return values


def read(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
