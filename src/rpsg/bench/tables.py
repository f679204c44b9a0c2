"""The tables of a benchmark: means over seeds with 95 % intervals, as Markdown, LaTeX and CSV."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rpsg.audit.verdict import LEAK
from rpsg.bench.compare import Difference, differences, differences_csv
from rpsg.bench.judge import JOINT_P
from rpsg.bench.matrix import Named
from rpsg.bench.outcomes import Outcome
from rpsg.privacy.card_file import escape
from rpsg.rundir import write_text
from rpsg.scores import Better

_TITLES = {
    "utility": "Utility",
    "diversity": "Lexical diversity",
    "fidelity": "Distribution similarity",
    "membership": "Membership inference: 0.5 is a guess, 1 names everybody (attacks on the release alone)",
    "leaks": "What single people lose: shares of members, and the rank of a text's seed (high is good)",
    "extraction": "Extraction",
    "sentiment": "Sentiment agreement with the seed, by a classifier that chose nothing",
    "privacy": "Privacy: epsilon of the texts as a whole, as the card has it, and the audit's verdict",
    "efficiency": "Efficiency, for 1,000 texts",
}
NOTE = (
    "Mean over seeds (95 % Student interval). Every cell has the same number of texts, and for a seed the "
    "same split of the people. A cell that failed, or released fewer texts, is named and not averaged. The "
    "cells together have no joint guarantee unless a data budget was charged. Figures are computed from "
    "private texts without noise: keep them private. A membership figure near 0.5 says that these attacks "
    "failed, not that a method is private, and 0 in every seed does not mean never. An arrow says which way "
    "is better; without one, as near as possible to what real texts have: the row of copies. The interval is "
    "that of a mean over few seeds and knows no bounds of a figure; values that all seeds agree on have none."
)
_ARROWS: Mapping[str, str] = {"lower": " ↓", "higher": " ↑"}
_FOUND = "share of seeds in which the audit found a leak"
# A name must not become a command.
_LATEX = str.maketrans(
    {char: "\\" + char for char in "%&_#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "\n": " ", "\r": " "}
    | {"↓": r"$\downarrow$", "↑": r"$\uparrow$"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half: half of the 95 % interval; None where the values do not tell.
        n: values.
    """

    mean: float
    half: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float], *, has_interval: bool = True) -> "Figure | None":
        """Returns the mean of some values; None of none. Values that are all alike tell of no spread."""
        from scipy.stats import t as student

        if not values:
            return None
        mean, n = float(np.mean(values)), len(values)
        if len(set(values)) < 2 or not has_interval:
            return cls(mean=mean, half=None, n=n)
        spread = float(np.std(values, ddof=1)) / math.sqrt(n)
        return cls(mean=mean, half=float(student.ppf(0.975, n - 1)) * spread, n=n)

    def __str__(self) -> str:
        if self.half is None:
            return _show(self.mean)
        return f"{_show(self.mean)} ({_show(self.mean - self.half)} to {_show(self.mean + self.half)})"


def _show(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


Key = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a table says of a method on a data set.

    Attributes:
        key: data, model, method, epsilon, texts of a cell, in words.
        figures: column to figure; None where no seed has one.
        seeds: those that are averaged.
        missing: cells that are not averaged, and why, in words.
        lacking: figures that averaged cells do not have, and why, in words.
    """

    key: Key
    figures: Mapping[str, Figure | None]
    seeds: tuple[int, ...]
    missing: tuple[str, ...]
    lacking: tuple[str, ...]


class Table(NamedTuple):
    """One of the benchmark's tables.

    Attributes:
        title: in words.
        columns: names of figures.
        rows: one for each combination but the seed.
        better: column to the good direction; of some there is none.
    """

    title: str
    columns: list[str]
    rows: list[Row]
    better: Mapping[str, Better]

    def head_of(self, column: str) -> str:
        """Returns a column's name in words, with an arrow to the good side."""
        return column.rpartition(": ")[2] + _ARROWS.get(self.better.get(column, ""), "")

    @property
    def head(self) -> list[str]:
        """What stands over the columns, those of a row's key included."""
        return [*HEAD, *map(self.head_of, self.columns)]


def make_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Returns the tables, one row for each combination but the seed."""
    names = list(dict.fromkeys(name for item in outcomes for name in item.figures))
    families = list(dict.fromkeys(name.partition(": ")[0] for name in names))
    tables = [
        _table(
            _TITLES.get(family, family), [n for n in names if n.startswith(f"{family}: ")], outcomes, _figure
        )
        for family in families
    ]
    tables.append(_table(_TITLES["privacy"], ["epsilon of the release", _FOUND], outcomes, _privacy))
    columns = list(dict.fromkeys(name for item in outcomes for name in item.costs))
    tables.append(_table(_TITLES["efficiency"], columns, outcomes, lambda item, name: item.costs.get(name)))
    return tables


def _figure(item: Outcome, name: str) -> float | None:
    return item.figures.get(name)


def _privacy(item: Outcome, name: str) -> float | None:
    if name != _FOUND:
        return item.card_epsilon
    return float(item.verdict == LEAK) if item.verdict else None


def _table(
    title: str,
    columns: list[str],
    outcomes: Sequence[Outcome],
    value: Callable[[Outcome, str], float | None],
) -> Table:
    groups: dict[Key, list[Outcome]] = {}
    for item in outcomes:
        groups.setdefault(_key_of(item), []).append(item)
    rows = []
    for key, items in groups.items():
        done = [item for item in items if item.state == "done"]
        figures = {
            name: Figure.of(
                [found for found in (value(item, name) for item in done) if found is not None],
                # A mean of p-values has no meaning but as a summary.
                has_interval=name != JOINT_P,
            )
            for name in columns
        }
        lacking = [
            f"{name}: {figure.n} of {len(done)} seeds have it"
            for name, figure in figures.items()
            if figure is not None and figure.n < len(done)
        ]
        rows.append(
            Row(
                key=key,
                figures=figures,
                seeds=tuple(item.seed for item in done),
                missing=_by_reason([item for item in items if item.state != "done"]),
                lacking=(*_by_reason([item for item in done if item.reason]), *lacking),
            )
        )
    better: dict[str, Better] = {}
    for item in outcomes:
        better |= {name: item.better[name] for name in columns if name in item.better}
    return Table(title, columns, rows, better)


def _key_of(cell: Named) -> Key:
    return (cell.data, cell.model, cell.method, show_epsilon(cell.epsilon), str(cell.n))


def _by_reason(items: Sequence[Outcome]) -> tuple[str, ...]:
    seeds: dict[str, list[str]] = {}
    for item in items:
        what = item.reason if item.state == "done" else f"{item.state}: {item.reason}"
        seeds.setdefault(what, []).append(str(item.seed))
    return tuple(f"{what} (seed {', '.join(found)})" for what, found in seeds.items())


def write_tables(
    outcomes: Sequence[Outcome], reference: str, folder: Path, *, planned: Sequence[Named]
) -> list[Path]:
    """Writes tables.md, tables.tex, tables.csv and differences.csv; returns their paths.

    Args:
        outcomes: of the cells.
        reference: the method that others are compared with.
        folder: of the benchmark.
        planned: all cells of the benchmark.
    """
    tables, compared = make_tables(outcomes), differences(outcomes, reference, planned)
    waiting = waiting_of(outcomes, planned)
    pages = {
        "tables.md": _markdown(
            tables, compared, reference, summary=summary_of(outcomes, len(planned)), waiting=waiting
        ),
        "tables.tex": _latex(tables),
        "tables.csv": _csv(tables),
        "differences.csv": differences_csv(compared),
    }
    for name, page in pages.items():
        write_text(folder / name, page)
    return [folder / name for name in pages]


_KEY = ("data", "model", "method", "epsilon", "n")
HEAD = (*_KEY, "seeds")
# At this level a difference is named.
LEVEL = 0.05


def show_epsilon(epsilon: float | None) -> str:
    """Returns an epsilon in words."""
    return "-" if epsilon is None else f"{epsilon:.12g}"


def cells_of(row: Row, columns: Iterable[str]) -> list[str]:
    """Returns the cells of a row of a table, in words."""
    seeds = ", ".join(map(str, row.seeds)) or "-"
    return [*row.key, seeds, *(str(row.figures[name] or "-") for name in columns)]


def named_differences(compared: Sequence[Difference]) -> list[list[str]]:
    """Returns the cells of the table of differences that are more than chance."""
    return [
        [
            item.data, item.model, item.method, show_epsilon(item.epsilon),
            show_epsilon(item.reference_epsilon), str(item.n), item.figure,
            f"{item.mean:+.3g} ({item.mean - item.half:+.3g} to {item.mean + item.half:+.3g})",
            f"{item.adjusted:.2g}",
        ]
        for item in compared
        if item.adjusted < LEVEL
    ]  # fmt: skip


def about_differences(compared: Sequence[Difference], reference: str) -> str:
    """Says what was compared and how."""
    n_named = sum(item.adjusted < LEVEL for item in compared)
    if not compared:
        return f"Nothing yet: no other method has two seeds in common with {reference}."
    return (
        f"Each method against {reference} of the same data, model, size and epsilon (where one takes none: "
        "at every epsilon of the other): Student's paired test over seeds, two-sided, p by Holm's method "
        "over the comparisons of one figure on one data set, those of cells that are not run yet included. "
        f"{n_named} of {len(compared)} differences have "
        f"p below {LEVEL}; all are in differences.csv. With few seeds the test has little power (with three, "
        "a difference must be three to nine times its spread over seeds): no difference here is no proof of "
        "likeness. Figures are many, and Holm's method is used within each only: some may be chance."
    )


DIFFERENCES_HEAD = (
    "data", "model", "method", "epsilon", "reference's epsilon", "n", "figure", "difference", "p",
)  # fmt: skip


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    parts = [[escape(cell) for cell in cells] for cells in (head, *rows)]
    return [f"| {' | '.join(cells)} |" for cells in (parts[0], ["---"] * len(head), *parts[1:])]


def summary_of(outcomes: Sequence[Outcome], n_cells: int) -> str:
    """Says what was run, and how much was not."""
    states = Counter[str](item.state for item in outcomes)
    if waiting := n_cells - len(outcomes):
        states["not run yet"] = waiting
    counts = ", ".join(f"{n} {state}" for state, n in states.items())
    parts = {
        "data": [item.data for item in outcomes],
        "models": [item.model for item in outcomes],
        "texts of a cell": [str(item.n) for item in outcomes],
        "seeds": [str(item.seed) for item in outcomes],
    }
    listed = "; ".join(f"{name}: {', '.join(dict.fromkeys(values))}" for name, values in parts.items())
    return f"{n_cells} cells ({counts}). {listed}."


def _markdown(
    tables: Sequence[Table],
    compared: Sequence[Difference],
    reference: str,
    *,
    summary: str,
    waiting: Sequence[str],
) -> str:
    parts = [f"# Benchmark\n\n{escape(summary)}\n\n{NOTE}\n"]
    for table in tables:
        cells = (cells_of(row, table.columns) for row in table.rows)
        parts += [f"## {table.title}\n", *_lines(table.head, cells), ""]
    parts += [f"## What differs from {reference}\n", about_differences(compared, reference), ""]
    if named := named_differences(compared):
        parts += [*_lines(DIFFERENCES_HEAD, named), ""]
    missing = [*missing_of(tables), *waiting]
    parts.append("## Cells that are not averaged, or lack a figure\n")
    parts += [f"- {escape(line)}" for line in missing] or ["None."]
    return "\n".join(parts) + "\n"


def waiting_of(outcomes: Sequence[Outcome], planned: Sequence[Named]) -> list[str]:
    """Names the seeds of each row that are not run yet: rows of other seeds are of other people."""
    done = {(*_key_of(item), item.seed) for item in outcomes}
    seeds: dict[Key, list[str]] = {}
    for cell in planned:
        if (*_key_of(cell), cell.seed) not in done:
            seeds.setdefault(_key_of(cell), []).append(str(cell.seed))
    rows: dict[str, list[str]] = {}
    for key, found in seeds.items():
        rows.setdefault(", ".join(found), []).append(", ".join(key))
    return [f"{'; '.join(names)}: not run yet (seed {found})" for found, names in rows.items()]


def missing_of(tables: Sequence[Table]) -> list[str]:
    """Names the cells that are not averaged, and the figures that averaged ones lack, each reason once."""
    of: dict[str, dict[str, None]] = {}
    for table in tables:
        for row in table.rows:
            for text in (*row.missing, *row.lacking):
                of.setdefault(text, {})[", ".join(row.key)] = None
    n_rows = len(tables[0].rows)
    return [
        f"{'every row' if len(rows) == n_rows > 1 else '; '.join(rows)}: {text}" for text, rows in of.items()
    ]


def _latex(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        head, title = table.head, table.title
        lines = [" & ".join(text.translate(_LATEX) for text in line) + r" \\" for line in
                 [head, *(cells_of(row, table.columns) for row in table.rows)]]  # fmt: skip
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
    writer.writerow(["table", *_KEY, "figure", "better", "mean", "low", "high", "n_seeds", "not_averaged"])
    for title, columns, rows, better in tables:
        for row in rows:
            for name in columns:
                figure, side = row.figures[name], better.get(name, "")
                if figure is None:
                    writer.writerow([title, *row.key, name, side, "", "", "", 0, "; ".join(row.missing)])
                    continue
                low, high = (
                    ("", "")
                    if figure.half is None
                    else (figure.mean - figure.half, figure.mean + figure.half)
                )
                missing = "; ".join(row.missing)
                writer.writerow([title, *row.key, name, side, figure.mean, low, high, figure.n, missing])
    return page.getvalue()
