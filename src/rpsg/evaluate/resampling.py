"""Equal sizes and intervals for metrics, by half-sampling.

Most distances between samples depend on how many rows they have, so figures of different sizes cannot be
compared. Every figure here is therefore the mean over several draws in which each data set gives the same
number of rows, half of the smallest set, without replacement. The spread of such halves around their mean
estimates the standard error of the whole (the delete-half jackknife: the variance of a half drawn without
replacement is s^2 (1/b - 1/n) = s^2 / n for b = n / 2). Draws with replacement would repeat rows, which
nearest-neighbour metrics take for copies.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rpsg.errors import DataError, NotComputable
from rpsg.rng import Streams
from rpsg.scores import Better, Comparison, Score

IntArray = npt.NDArray[np.int64]
T = TypeVar("T")
LEVEL = 0.95
# Every worker holds a few blocks of distances.
_MAX_WORKERS = 8
# Below this a half says next to nothing.
MIN_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a computed number is.

    Attributes:
        name: of the score.
        better: the good direction.
        low: smallest possible value.
        high: largest possible value.
        uses_private: whether the number of the synthetic texts needs private ones.
        undefined: why the number may be NaN.
        is_share: whether it counts rows, so that no row in a hundred does not mean no row at all.
    """

    name: str
    better: Better
    low: float = -math.inf
    high: float = math.inf
    uses_private: bool = True
    undefined: str = "not defined for these texts"
    is_share: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Row numbers of one draw, equally many in each data set."""

    real: IntArray
    holdout: IntArray
    synthetic: IntArray
    baseline: IntArray


def half_size(comparison: Comparison, *, at_most: int | None = None) -> int:
    """Returns how many rows of each data set one draw has.

    Raises:
        DataError: a data set has fewer than 20 rows.
    """
    sizes = {
        "real": len(comparison.real),
        "holdout": len(comparison.holdout),
        "synthetic": len(comparison.synthetic),
        "baseline": len(comparison.baseline),
    }
    name, smallest = min(sizes.items(), key=lambda item: item[1])
    if smallest < MIN_ROWS:
        raise DataError(f"the {name} data set has {smallest} usable rows; metrics need at least {MIN_ROWS}")
    half = smallest // 2
    return half if at_most is None else min(half, at_most)


def draw_halves(comparison: Comparison, name: str, *, size: int) -> list[Rows]:
    """Returns the rows of every draw; they depend on the seed, the metric's name and the sizes only.

    Args:
        comparison: the data sets and the number of draws.
        name: of the metric.
        size: rows of each data set in one draw.
    """
    streams = Streams(comparison.seed)
    return [_draw_rows(comparison, size, streams.get(name, i)) for i in range(comparison.repeats)]


def _draw_rows(comparison: Comparison, size: int, rng: np.random.Generator) -> Rows:
    return Rows(
        real=_draw(len(comparison.real), size, rng),
        holdout=_draw(len(comparison.holdout), size, rng),
        synthetic=_draw(len(comparison.synthetic), size, rng),
        baseline=_draw(len(comparison.baseline), size, rng),
    )


def map_draws(compute: Callable[[int, Rows], T], draws: Sequence[Rows]) -> list[T]:
    """Computes every draw, several at a time.

    Each runs on one thread of the linear algebra library, so results do not depend on the number of cores,
    and small problems do not wait for threads that other programs keep busy.

    Args:
        compute: given the number of the draw and its rows.
        draws: the rows.

    Returns:
        One result a draw, in order.
    """
    from threadpoolctl import threadpool_limits

    workers = max(1, min(os.cpu_count() or 1, len(draws), _MAX_WORKERS))
    with threadpool_limits(limits=1), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(compute, range(len(draws)), draws))


def _draw(n: int, size: int, rng: np.random.Generator) -> IntArray:
    return np.sort(rng.permutation(n)[:size]).astype(np.int64)


def summarise(
    figure: Figure,
    *,
    n: int,
    synthetic: Sequence[float],
    holdout: Sequence[float],
    baseline: Sequence[float],
) -> Score:
    """Makes a score of a figure's values over the draws.

    The interval is Student's t with the spread of the halves as standard error. It is that of a data set
    of twice `n` rows; where a set is larger the interval is too wide rather than too narrow. A share of rows
    has at least the exact interval of so many independent rows (Clopper-Pearson), and so has any figure
    between 0 and 1 that all draws agree on: no spread is no certainty. Of other figures that all draws agree
    on no interval is known.
    """
    value, low, high = mean_with_interval(synthetic)
    if value is not None and low is not None and high is not None:
        is_constant = math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12)
        if figure.is_share or (is_constant and (figure.low, figure.high) == (0, 1)):
            exact = share_interval(value, 2 * n)
            low, high = min(low, exact[0]), max(high, exact[1])
        elif is_constant:
            low = high = None
    return Score(
        name=figure.name,
        value=value,
        low=None if low is None else max(low, figure.low),
        high=None if high is None else min(high, figure.high),
        n=n,
        reference=mean_with_interval(holdout)[0],
        baseline=mean_with_interval(baseline)[0],
        uses_private=figure.uses_private,
        better=figure.better,
        reason="" if value is not None else figure.undefined,
    )


def share_interval(value: float, n: int) -> tuple[float, float]:
    """Returns the 95 % Clopper-Pearson interval of a share of `n` rows: 60 right of 60 do not mean 100 %."""
    from scipy.stats import binomtest

    found = binomtest(round(min(max(value, 0.0), 1.0) * n), n).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def mean_with_interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Returns mean and 95 % interval of half-sample values; Nones where one of them is not a number."""
    from scipy.stats import t as student

    found = np.asarray(values, dtype=np.float64)
    if not len(found) or not np.isfinite(found).all():
        return None, None, None
    mean = float(found.mean())
    if len(found) == 1:
        return mean, None, None
    margin = float(student.ppf((1 + LEVEL) / 2, len(found) - 1) * found.std(ddof=1))
    return mean, mean - margin, mean + margin


def not_computable(figures: Sequence[Figure], error: NotComputable) -> list[Score]:
    """Returns figures without a value, with the reason."""
    return [
        Score(
            name=figure.name,
            value=None,
            n=0,
            uses_private=figure.uses_private,
            better=figure.better,
            reason=str(error),
        )
        for figure in figures
    ]


def collect(
    figures: Sequence[Figure], draws: Sequence[Mapping[str, Sequence[float]]], *, n: int
) -> list[Score]:
    """Makes scores of several figures.

    Args:
        figures: what the numbers are, in order.
        draws: one a repetition: "synthetic", "holdout" and "baseline" to one number a figure.
        n: rows of each data set in one draw.
    """
    return [
        summarise(
            figure,
            n=n,
            synthetic=[draw["synthetic"][i] for draw in draws],
            holdout=[draw["holdout"][i] for draw in draws],
            baseline=[draw["baseline"][i] for draw in draws],
        )
        for i, figure in enumerate(figures)
    ]
