"""How the methods of a benchmark differ from one of them."""

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from rpsg.audit.estimators import holm
from rpsg.bench.judge import JOINT_P, WITHOUT_LEAK
from rpsg.bench.matrix import Named
from rpsg.bench.outcomes import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A method's figure minus the reference's, all else alike.

    A seed gives every method the same split of the people, so seeds are pairs: Student's paired test over the
    seeds that both have, two-sided. The spread is that of the two methods alone: that of others may be many
    times larger or smaller, and pooled would make differences of the noisier ones look certain.

    Attributes:
        data: the data set.
        model: that wrote.
        n: texts of a cell.
        method: compared.
        epsilon: its own; None where it takes none.
        reference_epsilon: of the reference.
        figure: family and name.
        mean: of the difference.
        half: half of its 95 % interval.
        n_seeds: that both have.
        p_value: as if this were the only one.
        adjusted: by Holm's method over all comparisons of this figure on this data set, all models and sizes,
            those that are not run yet included.
    """

    data: str
    model: str
    n: int
    method: str
    epsilon: float | None
    reference_epsilon: float | None
    figure: str
    mean: float
    half: float
    n_seeds: int
    p_value: float
    adjusted: float


_Side = tuple[str, float | None]
_Seeds = dict[int, Outcome]


def differences(outcomes: Sequence[Outcome], reference: str, planned: Sequence[Named]) -> list[Difference]:
    """Compares every method with the reference of the same data set, model, size and epsilon.

    A method, or reference, that takes no epsilon is compared at every epsilon of the other.

    Args:
        outcomes: cells; those that are not done do not count.
        reference: a method's name in the tables.
        planned: all cells of the benchmark. Holm's method counts their comparisons, so that a p never grows
            as more of them are run.

    Returns:
        One difference for each pair and figure with two seeds in common, figure by figure.
    """
    groups: dict[tuple[str, str, int], dict[_Side, _Seeds]] = defaultdict(lambda: defaultdict(dict))
    for item in outcomes:
        if item.state == "done":
            groups[item.data, item.model, item.n][item.method, item.epsilon][item.seed] = item
    families: dict[tuple[str, str], list[Difference]] = defaultdict(list)
    for (data, _, _), sides in groups.items():
        for found in _compare(sides, reference):
            families[data, found.figure].append(found)
    n_planned = _count(planned, reference)
    return [item for (data, _), family in families.items() for item in _adjusted(family, n_planned[data])]


def _count(planned: Sequence[Named], reference: str) -> Counter[str]:
    """Counts the comparisons of one figure on each data set."""
    groups: dict[tuple[str, str, int], dict[_Side, None]] = defaultdict(dict)
    for cell in planned:
        groups[cell.data, cell.model, cell.n][cell.method, cell.epsilon] = None
    counts = Counter[str]()
    for (data, _, _), sides in groups.items():
        counts[data] += sum(1 for _ in _pairs(sides, reference))
    return counts


def _pairs(sides: Iterable[_Side], reference: str) -> Iterator[tuple[_Side, _Side]]:
    for side, other in product(list(sides), repeat=2):
        alike = side[1] == other[1] or None in (side[1], other[1])
        if side[0] != reference and other[0] == reference and alike:
            yield side, other


def _compare(sides: Mapping[_Side, _Seeds], reference: str) -> Iterator[Difference]:
    for side, other in _pairs(sides, reference):
        yield from _compare_two(sides[side], sides[other])


def _compare_two(own: _Seeds, reference: _Seeds) -> Iterator[Difference]:
    pairs = [(cell, reference[seed]) for seed, cell in own.items() if seed in reference]
    for figure in dict.fromkeys(name for cell, _ in pairs for name in cell.figures):
        found = [
            cell.figures[figure] - other.figures[figure]
            for cell, other in pairs
            if figure in cell.figures and figure in other.figures
        ]
        # Controls and p-values are no merits of a method.
        if len(found) < 2 or figure == JOINT_P or figure.endswith(WITHOUT_LEAK):
            continue
        first, other = pairs[0]
        mean, half, p_value = _paired(found)
        yield Difference(
            data=first.data,
            model=first.model,
            n=first.n,
            method=first.method,
            epsilon=first.epsilon,
            reference_epsilon=other.epsilon,
            figure=figure,
            mean=mean,
            half=half,
            n_seeds=len(found),
            p_value=p_value,
            adjusted=p_value,
        )


def _paired(found: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean of some differences, half of its 95 % interval, and p."""
    from scipy.stats import t as student

    n, mean, spread = len(found), float(np.mean(found)), float(np.std(found, ddof=1))
    # Of figures that agree to the last digit rounding is all that is left. That every seed says the same to
    # the digit has no spread to test against; that they have one sign is what is left to go by.
    if spread <= 1e-12 * float(np.max(np.abs(found))):
        return mean, 0.0, 1.0 if mean == 0 else 0.5 ** (n - 1)
    error = spread / math.sqrt(n)
    half = float(student.ppf(0.975, n - 1)) * error
    return mean, half, 2 * float(student.sf(abs(mean) / error, n - 1))


def _adjusted(items: Sequence[Difference], n_planned: int) -> list[Difference]:
    # What is not run yet is taken to differ in nothing.
    p_values = [item.p_value for item in items] + [1.0] * (n_planned - len(items))
    return [replace(item, adjusted=value) for item, value in zip(items, holm(p_values), strict=False)]


def differences_csv(found: Sequence[Difference]) -> str:
    """Writes every difference, one a line."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(
        ["data", "model", "n", "method", "epsilon", "reference_epsilon", "figure", "difference", "low",
         "high", "n_seeds", "p", "p_holm"]
    )  # fmt: skip
    for item in found:
        epsilons = ["" if value is None else value for value in (item.epsilon, item.reference_epsilon)]
        writer.writerow(
            [item.data, item.model, item.n, item.method, *epsilons, item.figure, item.mean,
             item.mean - item.half, item.mean + item.half, item.n_seeds, item.p_value, item.adjusted]
        )  # fmt: skip
    return page.getvalue()
