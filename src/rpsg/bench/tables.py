"""The tables of a benchmark: means over seeds with 95 % intervals."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rpsg.audit.verdict import LEAK
from rpsg.bench.judge import JOINT_P
from rpsg.bench.matrix import Named
from rpsg.bench.outcomes import Outcome
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
HEAD = ("data", "model", "method", "epsilon", "n")
_ARROWS: Mapping[str, str] = {"lower": " ↓", "higher": " ↑"}
_FOUND = "share of seeds in which the audit found a leak"


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
        """What stands over the columns: what tells rows apart, their seeds, the figures."""
        return [*(HEAD[place] for place in self._telling), "seeds", *map(self.head_of, self.columns)]

    @property
    def lines(self) -> list[list[str]]:
        """The rows in words, as many cells as `head` has."""
        return [
            [
                *(row.key[place] for place in self._telling),
                ", ".join(map(str, row.seeds)) or "-",
                *(str(row.figures[name] or "-") for name in self.columns),
            ]
            for row in self.rows
        ]

    @property
    def _telling(self) -> list[int]:
        # What all rows share stands above the tables; the method stands first.
        places = [place for place in range(len(HEAD)) if len({row.key[place] for row in self.rows}) > 1]
        method = HEAD.index("method")
        return [method, *(place for place in places if place != method)]


def name_of(table: Table) -> str:
    """Returns a name for files and references."""
    return re.split("[:(,]", table.title)[0].strip().lower().replace(" ", "-")


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
        groups.setdefault(key_of(item), []).append(item)
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


def key_of(cell: Named) -> Key:
    """Returns what a cell has in common with those of its row."""
    return (cell.data, cell.model, cell.method, show_epsilon(cell.epsilon), str(cell.n))


def _by_reason(items: Sequence[Outcome]) -> tuple[str, ...]:
    seeds: dict[str, list[str]] = {}
    for item in items:
        what = item.reason if item.state == "done" else f"{item.state}: {item.reason}"
        seeds.setdefault(what, []).append(str(item.seed))
    return tuple(f"{what} (seed {', '.join(found)})" for what, found in seeds.items())


def show_epsilon(epsilon: float | None) -> str:
    """Returns an epsilon in words."""
    return "-" if epsilon is None else f"{epsilon:.12g}"
