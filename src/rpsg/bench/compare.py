"""How the methods of a benchmark differ from one of them."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from rpsg.audit.estimators import holm
from rpsg.bench.cells import Outcome
from rpsg.bench.judge import JOINT_P, WITHOUT_LEAK


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A method's figure minus the reference's, all else alike.

    A seed gives every method the same split of the people: a randomised block design. Each figure is modelled
    as one part for the method and one for the seed; the spread of what is left, over all methods, is what a
    difference is held against (Student's test, two-sided).

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
        n_seeds: of the method and the reference together.
        p_value: as if this were the only one.
        adjusted: by Holm's method over all comparisons of this figure on this data set.
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
# Fewer degrees of freedom say nothing of a spread.
_LEAST_FREEDOM = 2


def differences(outcomes: Sequence[Outcome], reference: str) -> list[Difference]:
    """Compares every method with the reference of the same data set, model, size and epsilon.

    A method, or reference, that takes no epsilon is compared at every epsilon of the other.

    Args:
        outcomes: cells; those that are not done do not count.
        reference: a method's name in the tables.

    Returns:
        One difference for each pair and figure with two seeds in common, figure by figure.
    """
    groups: dict[tuple[str, str, int], dict[_Side, _Seeds]] = defaultdict(lambda: defaultdict(dict))
    for item in outcomes:
        if item.state == "done":
            groups[item.data, item.model, item.n][item.method, item.epsilon][item.seed] = item
    found: list[Difference] = []
    for sides in groups.values():
        names = dict.fromkeys(
            name for cells in sides.values() for cell in cells.values() for name in cell.figures
        )
        for figure in names:
            # Controls and p-values are no merits of a method.
            if figure != JOINT_P and not figure.endswith(WITHOUT_LEAK):
                found += _adjusted(list(_compare(figure, sides, reference)))
    return found


def _compare(figure: str, sides: Mapping[_Side, _Seeds], reference: str) -> Iterator[Difference]:
    values = {
        (side, seed): cell.figures[figure]
        for side, cells in sides.items()
        for seed, cell in cells.items()
        if figure in cell.figures
    }
    blocks = _Blocks(values)
    for side, other in product(sides, sides):
        alike = side[1] == other[1] or None in (side[1], other[1])
        seeds = {seed for seed in sides[side] if (side, seed) in values and (other, seed) in values}
        if side[0] == reference or other[0] != reference or not alike or len(seeds) < 2:
            continue
        tested = blocks.contrast(side, other)
        if tested is not None:
            mean, half, p_value = tested
            first = next(iter(sides[side].values()))
            yield Difference(
                data=first.data,
                model=first.model,
                n=first.n,
                method=side[0],
                epsilon=side[1],
                reference_epsilon=other[1],
                figure=figure,
                mean=mean,
                half=half,
                n_seeds=len(seeds),
                p_value=p_value,
                adjusted=p_value,
            )


class _Blocks:
    """The additive model of methods and seeds, by least squares; cells may be missing."""

    def __init__(self, values: Mapping[tuple[_Side, int], float]) -> None:
        self._sides = {side: place for place, side in enumerate(dict.fromkeys(side for side, _ in values))}
        seeds = {seed: place for place, seed in enumerate(dict.fromkeys(seed for _, seed in values))}
        design = np.zeros((len(values), len(self._sides) + len(seeds)))
        for row, (side, seed) in enumerate(values):
            design[row, self._sides[side]] = design[row, len(self._sides) + seeds[seed]] = 1
        observed = np.array(list(values.values()), dtype=np.float64)
        self._inverse = np.linalg.pinv(design.T @ design)
        self._effects = self._inverse @ design.T @ observed
        self._freedom = len(values) - int(np.linalg.matrix_rank(design)) if len(values) else 0
        self._residual = float(np.sum((observed - design @ self._effects) ** 2))
        # Of figures that agree to the last digit rounding is all that is left.
        if self._residual <= len(values) * (1e-12 * float(np.max(np.abs(observed), initial=0))) ** 2:
            self._residual = 0.0

    def contrast(self, side: _Side, other: _Side) -> tuple[float, float, float] | None:
        """Returns a difference, half of its 95 % interval, and p; None where nothing can be tested."""
        from scipy.stats import t as student

        if self._freedom < _LEAST_FREEDOM:
            return None
        weights = np.zeros(len(self._effects))
        weights[self._sides[side]], weights[self._sides[other]] = 1, -1
        mean = float(weights @ self._effects)
        error = math.sqrt(self._residual / self._freedom * float(weights @ self._inverse @ weights))
        if error == 0:
            return mean, 0.0, 1.0 if abs(mean) < 1e-12 else 0.0
        half = float(student.ppf(0.975, self._freedom)) * error
        return mean, half, 2 * float(student.sf(abs(mean) / error, self._freedom))


def _adjusted(items: Sequence[Difference]) -> list[Difference]:
    return [
        replace(item, adjusted=value)
        for item, value in zip(items, holm([item.p_value for item in items]), strict=True)
    ]


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
