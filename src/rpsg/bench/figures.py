"""The figures of a benchmark: tables as panels of means with intervals, and leakage against quality.

Needs the extra `[bench]` (matplotlib).
"""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpsg.bench.tables import Key, Row, Table, name_of
from rpsg.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Chart

_COLUMNS = 4
_TITLE_WIDTH = 34
_STYLE: dict[Any, Any] = {
    # Names are a user's: no formulas in them. Text stays text, so a page can be searched and read aloud.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "rpsg",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# The same figures are the same bytes, and a page of them names no other.
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_UTILITY = ("utility: next_word_accuracy", "fidelity: frechet_distance")
_LEAKAGE = "membership: AUC, combined"


def draw_figures(tables: Sequence[Table], folder: Path) -> dict[str, Path]:
    """Writes each figure as SVG and PNG.

    Args:
        tables: of the benchmark.
        folder: to write to.

    Returns:
        Title to SVG file.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError('figures need matplotlib: pip install "rpsg[bench]", or --no-figures') from None
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    with mpl.rc_context(_STYLE):
        for title, name, chart in _charts(tables):
            for kind in ("svg", "png"):
                chart.savefig(
                    folder / f"{name}.{kind}", dpi=150, metadata=_METADATA if kind == "svg" else None
                )
            paths[title] = folder / f"{name}.svg"
    return paths


def _charts(tables: Sequence[Table]) -> Iterator[tuple[str, str, "Chart"]]:
    for table in tables:
        drawn = [name for name in table.columns if any(row.figures[name] for row in table.rows)]
        if not drawn:
            continue
        name = name_of(table)
        yield table.title, name, _panels(drawn, table)
        if len({row.key[4] for row in table.rows}) > 1:
            yield f"{table.title}, against the number of texts", f"{name}-by-n", _lines(drawn, table)
    yield from _frontier(tables)


def _grid(n_panels: int, height: float) -> tuple["Chart", list["Axes"]]:
    from matplotlib.figure import Figure as Chart

    n_columns = min(_COLUMNS, n_panels)
    n_rows = -(-n_panels // n_columns)
    chart = Chart(figsize=(3.2 * n_columns + 1.2, height * n_rows), layout="constrained")
    panels = chart.subplots(n_rows, n_columns, squeeze=False, sharey=False).ravel().tolist()
    for panel in panels[n_panels:]:
        panel.set_axis_off()
    return chart, panels


def _name_of(key: Key, rows: Sequence[Row], *, with_n: bool = True) -> str:
    """Returns what tells a row from the others: the method, and what else is not the same in all."""
    data, model, method, epsilon, n = key
    words = [method] if epsilon == "-" else [f"{method}, ε {epsilon}"]
    for place, value in ((0, data), (1, model), *(((4, f"n {n}"),) if with_n else ())):
        if len({row.key[place] for row in rows}) > 1:
            words.append(value)
    return ", ".join(words)


def _panels(columns: Sequence[str], table: Table) -> "Chart":
    rows = table.rows
    chart, panels = _grid(len(columns), 0.6 + 0.2 * len(rows))
    names = [_name_of(row.key, rows) for row in rows]
    for place, (panel, column) in enumerate(zip(panels, columns, strict=False)):
        for height, row in enumerate(rows):
            figure = row.figures[column]
            if figure is not None:
                panel.errorbar(figure.mean, height, xerr=figure.half or 0, fmt="o", ms=4, capsize=2, c="C0")
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_yticks(range(len(rows)), names if place % _COLUMNS == 0 else [""] * len(rows))
        panel.grid(axis="x", alpha=0.3)
        left, _ = panel.get_xlim()
        found = [figure for row in rows if (figure := row.figures[column]) is not None]
        lowest = min(figure.mean - (figure.half or 0) for figure in found)
        # No room below zero for what is never there.
        panel.set_xlim(left=left if lowest < 0 else max(left, 0.0), auto=None)
        panel.set_title(_wrapped(table.head_of(column)))
    return chart


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, _TITLE_WIDTH))


def _lines(columns: Sequence[str], table: Table) -> "Chart":
    rows = table.rows
    chart, panels = _grid(len(columns), 2.6)
    names = list(dict.fromkeys(_name_of(row.key, rows, with_n=False) for row in rows))
    for panel, column in zip(panels, columns, strict=False):
        for color, name in enumerate(names):
            own = [row for row in rows if _name_of(row.key, rows, with_n=False) == name]
            points = [(int(row.key[4]), found) for row in own if (found := row.figures[column]) is not None]
            if points:
                panel.errorbar(
                    [n for n, _ in points],
                    [figure.mean for _, figure in points],
                    yerr=[figure.half or 0 for _, figure in points],
                    marker="o", ms=3, capsize=2, c=f"C{color % 10}", label=name,
                )  # fmt: skip
        panel.set_xlabel("texts")
        panel.set_title(_wrapped(table.head_of(column)))
    if names:
        panels[0].legend(fontsize=6)
    return chart


def _frontier(tables: Sequence[Table]) -> Iterator[tuple[str, str, "Chart"]]:
    """Leakage against quality, larger where a text takes longer."""
    import matplotlib as mpl
    from matplotlib.collections import PathCollection

    by_column = {name: table for table in tables for name in table.columns}
    for utility in _UTILITY:
        if not {utility, _LEAKAGE, "seconds"} <= by_column.keys():
            continue
        rows = by_column[utility].rows
        chart, (panel,) = _grid(1, 4.5)
        chart.set_size_inches(9, 4.5)
        times = [found.mean for row in by_column["seconds"].rows if (found := row.figures["seconds"])]
        triples = zip(rows, by_column[_LEAKAGE].rows, by_column["seconds"].rows, strict=True)
        for place, (row, leaks, cost) in enumerate(triples):
            y, x, seconds = row.figures[utility], leaks.figures[_LEAKAGE], cost.figures["seconds"]
            if x is None or y is None or seconds is None:
                continue
            size = 20 + 300 * seconds.mean / (max(times) or 1.0)
            # Of the larger map neighbours look like pairs.
            color = mpl.colormaps["tab10" if len(rows) <= 10 else "tab20"](place % 20)
            # Without its interval a point would claim more than three seeds can say.
            panel.errorbar(
                x.mean,
                y.mean,
                xerr=x.half or 0,
                yerr=y.half or 0,
                fmt="none",
                ecolor=color,
                alpha=0.35,
                zorder=0,
            )
            panel.scatter(x.mean, y.mean, s=size, alpha=0.8, color=color, label=_name_of(row.key, rows))
        panel.axvline(0.5, ls=":", c="0.5")
        panel.set_xlabel(f"{_LEAKAGE} (0.5 is a guess)")
        panel.set_ylabel(by_column[utility].head_of(utility).replace("_", " "))
        legend = panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([30])
        name = utility.rpartition(": ")[2].replace("_", " ")
        yield f"Leakage, {name} and time (larger is longer)", f"frontier-{name.replace(' ', '-')}", chart
