"""The tables of a benchmark in words: as Markdown, LaTeX and CSV, with what differs and what is missing."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rpsg.bench.compare import Difference, differences, differences_csv
from rpsg.bench.matrix import Named
from rpsg.bench.outcomes import Outcome
from rpsg.bench.tables import HEAD, Key, Table, key_of, make_tables, name_of, show_epsilon
from rpsg.privacy.card_file import escape
from rpsg.rundir import write_text

NOTE = (
    "Mean over seeds (95 % Student interval). Every cell has the same number of texts, and for a seed the "
    "same split of the people. A cell that failed, or released fewer texts, is named and not averaged. The "
    "cells together have no joint guarantee unless a data budget was charged. Figures are computed from "
    "private texts without noise: keep them private. A membership figure near 0.5 says that these attacks "
    "failed, not that a method is private, and 0 in every seed does not mean never. An arrow says which way "
    "is better; without one, as near as possible to what real texts have: the row of copies. The interval is "
    "that of a mean over few seeds and knows no bounds of a figure; values that all seeds agree on have none."
)
# At this level a difference is named.
LEVEL = 0.05
# A name must not become a command.
_LATEX = str.maketrans(
    {char: "\\" + char for char in "%&_#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "\n": " ", "\r": " "}
    | {"↓": r"$\downarrow$", "↑": r"$\uparrow$"}
)


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
        parts += [f"## {table.title}\n", *_lines(table.head, table.lines), ""]
    parts += [f"## What differs from {reference}\n", about_differences(compared, reference), ""]
    if named := named_differences(compared):
        parts += [*_lines(DIFFERENCES_HEAD, named), ""]
    missing = [*missing_of(tables), *waiting]
    parts.append("## Cells that are not averaged, or lack a figure\n")
    parts += [f"- {escape(line)}" for line in missing] or ["None."]
    return "\n".join(parts) + "\n"


def waiting_of(outcomes: Sequence[Outcome], planned: Sequence[Named]) -> list[str]:
    """Names the seeds of each row that are not run yet: rows of other seeds are of other people."""
    done = {(*key_of(item), item.seed) for item in outcomes}
    seeds: dict[Key, list[str]] = {}
    for cell in planned:
        if (*key_of(cell), cell.seed) not in done:
            seeds.setdefault(key_of(cell), []).append(str(cell.seed))
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
        rows = [table.head, *table.lines]
        lines = [" & ".join(text.translate(_LATEX) for text in row) + r" \\" for row in rows]
        lines.insert(1, r"\hline")
        parts += [
            # As wide as the page; needs graphicx.
            rf"\begin{{table}}\caption{{{table.title.translate(_LATEX)}}}\label{{tab:{name_of(table)}}}",
            rf"\resizebox{{\textwidth}}{{!}}{{\begin{{tabular}}{{{'l' * len(table.head)}}}",
            *lines,
            r"\end{tabular}}\end{table}",
            "",
        ]
    return "\n".join(parts)


def _csv(tables: Sequence[Table]) -> str:
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(["table", *HEAD, "figure", "better", "mean", "low", "high", "n_seeds", "not_averaged"])
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
