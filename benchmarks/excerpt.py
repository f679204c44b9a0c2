"""The tables of docs/benchmark.md, from the outcomes of a benchmark.

Means over seeds, ± half of the 95 % Student interval.

    rpsg bench CONFIG -o DIR
    python benchmarks/excerpt.py CONFIG DIR
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from rpsg.bench.judge import WITHOUT_LEAK
from rpsg.bench.matrix import BenchConfig, cells_of
from rpsg.bench.outcomes import read_outcome
from rpsg.bench.tables import Figure, Table, make_tables

QUALITY = {
    "fidelity: frechet_distance": "Fréchet distance ↓",
    "utility: next_word_accuracy": "next-word accuracy ↑",
    "fidelity: coverage": "coverage ↑",
    "fidelity: recall": "recall ↑",
    "fidelity: mauve": "MAUVE ↑",
    "diversity: self_bleu": "self-BLEU",
    "diversity: distinct_2": "distinct-2",
}
LEAKAGE = {
    "epsilon of the release": "epsilon of the release",
    "share of seeds in which the audit found a leak": "audits that found a leak",
    "membership: AUC, combined": "membership AUC, combined",
    "membership: AUC, nearest tfidf": "membership AUC, nearest",
    "leaks: members disclosed": "members disclosed",
    "extraction: texts with a private detail": "texts with a private detail",
    "leaks: rank of the seed": "rank of the seed",
    f"leaks: rank of the seed{WITHOUT_LEAK}": "the same, nothing leaked",
}
COSTS = {"seconds": "seconds", "tokens written": "tokens written", "model calls": "model calls"}


def main(config: Path, folder: Path) -> None:
    bench = BenchConfig.load(config)
    found = [read_outcome(folder, cell.name) for cell in cells_of(bench)]
    outcomes = [item for item in found if item is not None]
    for data in dict.fromkeys(item.data for item in outcomes):
        tables = make_tables([item for item in outcomes if item.data == data])
        for name, columns in {"Quality": QUALITY, "Leakage": LEAKAGE, "Cost, for 1,000 texts": COSTS}.items():
            print(f"\n## {data}: {name}\n")
            print_table(tables, columns)


def print_table(tables: list[Table], columns: Mapping[str, str]) -> None:
    of = {name: table for table in tables for name in table.columns}
    found = {name: words for name, words in columns.items() if name in of}
    print(f"| {' | '.join(['method', 'epsilon', 'seeds', *found.values()])} |")
    print("|---" * (3 + len(found)) + "|")
    for place, row in enumerate(tables[0].rows):
        figures = [of[name].rows[place].figures[name] for name in found]
        seeds = max((figure.n for figure in figures if figure), default=0)
        _, _, method, epsilon, _ = row.key
        print(f"| {' | '.join([method, epsilon, str(seeds), *map(show, figures)])} |")


def show(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    mean = f"{figure.mean / 1000:,.1f}k" if abs(figure.mean) >= 1000 else f"{figure.mean:.3g}"
    # Of thousands a digit more would be the machine's; what is the same in every seed has no interval.
    if abs(figure.mean) >= 1000 or not figure.half:
        return mean
    return f"{mean} ± {figure.half:.2g}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
