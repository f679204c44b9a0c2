"""The tables of a benchmark: means over seeds with 95 % intervals, as Markdown, LaTeX and CSV."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rpsg.bench.cells import Outcome
from rpsg.rundir import write_text

_TITLES = {
    "utility": "Utility",
    "diversity": "Lexical diversity",
    "fidelity": "Distribution similarity",
    "membership": "Membership inference: 0.5 is a guess, 1 names everybody (attacks on the release alone)",
    "leaks": "What single people lose: shares of members, and the rank of a text's seed (high is good)",
    "extraction": "Extraction",
    "sentiment": "Sentiment agreement with the seed, by a classifier that chose nothing",
    "privacy": "Privacy: epsilon of the released texts as a whole, as the card has it",
    "efficiency": "Efficiency, for 1,000 texts",
}
_NOTE = (
    "Mean over seeds (95 % Student interval). Every cell has the same number of texts, and for a seed the "
    "same split of the people. A cell that failed, or released fewer texts, is named and not averaged. The "
    "cells together have no joint guarantee unless a data budget was charged. Figures are computed from "
    "private texts without noise: keep them private. A membership figure near 0.5 says that these attacks "
    "failed, not that a method is private."
)
_LATEX = str.maketrans({char: "\\" + char for char in "%&_#$"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half: half of the 95 % interval; None with one value.
        n: values.
    """

    mean: float
    half: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure | None":
        """Returns the mean of some values; None of none."""
        from scipy.stats import t as student

        if not values:
            return None
        mean, n = float(np.mean(values)), len(values)
        if n < 2:
            return cls(mean=mean, half=None, n=n)
        spread = float(np.std(values, ddof=1)) / math.sqrt(n)
        return cls(mean=mean, half=float(student.ppf(0.975, n - 1)) * spread, n=n)

    def __str__(self) -> str:
        if self.half is None:
            return f"{self.mean:.3g}"
        return f"{self.mean:.3g} ({self.mean - self.half:.3g} to {self.mean + self.half:.3g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a table says of a method on a data set.

    Attributes:
        key: data, model, method, epsilon in words.
        figures: column to figure; None where no seed has one.
        missing: cells that are not averaged, in words.
    """

    key: tuple[str, str, str, str]
    figures: Mapping[str, Figure | None]
    missing: str


Table = tuple[str, list[str], list[Row]]


def make_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Returns title, columns and rows of each table, one row for each combination but the seed."""
    names = list(dict.fromkeys(name for item in outcomes for name in item.figures))
    families = list(dict.fromkeys(name.partition(": ")[0] for name in names))
    tables = [
        _table(
            _TITLES.get(family, family), [n for n in names if n.startswith(f"{family}: ")], outcomes, _figure
        )
        for family in families
    ]
    tables.append(_table(_TITLES["privacy"], ["epsilon"], outcomes, lambda item, _: item.card_epsilon))
    columns = list(dict.fromkeys(name for item in outcomes for name in item.costs))
    tables.append(_table(_TITLES["efficiency"], columns, outcomes, lambda item, name: item.costs.get(name)))
    return tables


def _figure(item: Outcome, name: str) -> float | None:
    return item.figures.get(name)


def _table(
    title: str,
    columns: list[str],
    outcomes: Sequence[Outcome],
    value: Callable[[Outcome, str], float | None],
) -> Table:
    groups: dict[tuple[str, str, str, str], list[Outcome]] = {}
    for item in outcomes:
        epsilon = "-" if item.epsilon is None else f"{item.epsilon:g}"
        groups.setdefault((item.data, item.model, item.method, epsilon), []).append(item)
    rows = []
    for key, items in groups.items():
        done = [item for item in items if item.state == "done"]
        figures = {
            name: Figure.of([found for found in (value(item, name) for item in done) if found is not None])
            for name in columns
        }
        missing = "; ".join(f"seed {item.seed} {item.state}: {item.reason}" for item in items if item.reason)
        rows.append(Row(key=key, figures=figures, missing=missing))
    return title, columns, rows


def write_tables(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Writes tables.md, tables.tex and tables.csv; returns their paths."""
    tables = make_tables(outcomes)
    pages = {"tables.md": _markdown(tables), "tables.tex": _latex(tables), "tables.csv": _csv(tables)}
    for name, page in pages.items():
        write_text(folder / name, page)
    return [folder / name for name in pages]


_HEAD = ("data", "model", "method", "epsilon")


def _cells_of(row: Row, columns: Iterable[str]) -> list[str]:
    return [*row.key, *(str(row.figures[name] or "-") for name in columns)]


def _markdown(tables: Sequence[Table]) -> str:
    parts = [f"# Benchmark\n\n{_NOTE}\n"]
    for title, columns, rows in tables:
        head = [*_HEAD, *(name.rpartition(": ")[2] for name in columns)]
        parts += [f"## {title}\n", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        parts += [f"| {' | '.join(_cells_of(row, columns))} |" for row in rows]
        parts.append("")
    missing = [(row.key, row.missing) for row in tables[0][2] if row.missing]
    parts.append("## Cells that are not averaged, or lack a figure\n")
    parts += [f"- {', '.join(key)}: {why}" for key, why in missing] or ["None."]
    return "\n".join(parts) + "\n"


def _latex(tables: Sequence[Table]) -> str:
    parts = []
    for title, columns, rows in tables:
        head = [*_HEAD, *(name.rpartition(": ")[2] for name in columns)]
        lines = [" & ".join(text.translate(_LATEX) for text in line) + r" \\" for line in
                 [head, *(_cells_of(row, columns) for row in rows)]]  # fmt: skip
        lines.insert(1, r"\hline")
        parts += [
            rf"\begin{{table}}\caption{{{title.translate(_LATEX)}}}",
            rf"\begin{{tabular}}{{{'l' * len(head)}}}",
            *lines,
            r"\end{tabular}\end{table}",
            "",
        ]
    return "\n".join(parts)


def _csv(tables: Sequence[Table]) -> str:
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(["table", *_HEAD, "figure", "mean", "low", "high", "n_seeds", "not_averaged"])
    for title, columns, rows in tables:
        for row in rows:
            for name in columns:
                figure = row.figures[name]
                if figure is None:
                    writer.writerow([title, *row.key, name, "", "", "", 0, row.missing])
                    continue
                low, high = (
                    ("", "")
                    if figure.half is None
                    else (figure.mean - figure.half, figure.mean + figure.half)
                )
                writer.writerow([title, *row.key, name, figure.mean, low, high, figure.n, row.missing])
    return page.getvalue()
