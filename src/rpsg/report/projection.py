"""Places texts on a plane, so that similar ones lie near each other, and says how dense real ones lie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rpsg.types import FloatArray

_CELLS = 50
# More real texts than this change the contours little and cost time.
_MOST_REAL = 3000
_MOST_FEATURES = 20_000
# Words in more texts than this say little of what a text is about.
_MOST_COMMON = 0.3
_TINY = 1e-6
# Fewer would show as single hills.
_LEAST_REAL = 20


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Points:
    """Positions on the plane, shape (n, 2)."""

    positions: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Density:
    """Density of real texts on a grid.

    Attributes:
        x: of the grid's columns.
        y: of its rows.
        z: the density, shape (len(y), len(x)), at most 1.
        level: 90 % of the real texts lie where it is at least this.
        n: real texts.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    z: npt.NDArray[np.float64]
    level: float
    n: int

    def at(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Returns the density in each position's cell."""
        columns = np.clip(np.searchsorted(self.x, positions[:, 0]), 0, len(self.x) - 1)
        rows = np.clip(np.searchsorted(self.y, positions[:, 1]), 0, len(self.y) - 1)
        return np.asarray(self.z[rows, columns])

    def share_inside(self, positions: npt.NDArray[np.float64]) -> float:
        """Returns the share of positions where the density reaches `level`."""
        return float(np.mean(self.at(positions) >= self.level)) if len(positions) else 0.0


def vectors_of_words(texts: Sequence[str]) -> FloatArray:
    """Returns vectors by the words that texts use (TF-IDF), in at most 20 dimensions; deterministic."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(max_features=_MOST_FEATURES, max_df=_MOST_COMMON if len(texts) > 9 else 1.0)
    try:
        found = weights.fit_transform(texts)
    except ValueError:
        # No text has a word.
        return np.zeros((len(texts), 2), np.float32)
    size = min(20, found.shape[1] - 1, found.shape[0] - 1)
    if size < 2:
        return np.zeros((len(texts), 2), np.float32)
    reduced: FloatArray = TruncatedSVD(size, random_state=0).fit_transform(found).astype(np.float32)
    return reduced


def place(real: FloatArray, synthetic: FloatArray) -> tuple[Points, Density | None]:
    """Projects both sets on the plane that shows most of their spread (principal components).

    Args:
        real: vectors of real texts, shape (n, d); n = 0 where there are none.
        synthetic: vectors of synthetic texts, shape (m, d), m > 0.

    Returns:
        The synthetic positions; the density of the real ones, None where there are too few to show it without
        showing single texts.
    """
    everything = np.concatenate([real, synthetic]).astype(np.float64)
    centred = everything - everything.mean(axis=0)
    _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // _MOST_REAL)], full_matrices=False)
    plane = axes[:2] if len(axes) > 1 else np.eye(2, centred.shape[1])
    # The sign of a component is arbitrary: fixed, so that the same texts give the same picture.
    plane = plane * np.sign(plane[np.arange(2), np.abs(plane).argmax(axis=1)])[:, None]
    positions = centred @ plane.T
    points = Points(positions=positions[len(real) :])
    return points, _density(positions[: len(real)], positions)


def _density(real: npt.NDArray[np.float64], everything: npt.NDArray[np.float64]) -> Density | None:
    part = real[:: max(1, len(real) // _MOST_REAL)]
    if len(part) < _LEAST_REAL:
        return None
    low, high = everything.min(axis=0), everything.max(axis=0)
    border = 0.08 * (high - low) + _TINY
    x, y = (np.linspace(low[i] - border[i], high[i] + border[i], _CELLS) for i in (0, 1))
    # Gaussian kernels of Scott's width, at least a cell wide: no hill falls between the lines of the grid.
    widths = [
        max(part[:, i].std() * len(part) ** (-1 / 6), axis[1] - axis[0]) for i, axis in enumerate((x, y))
    ]
    columns, rows = (
        np.exp(-0.5 * ((axis[:, None] - part[None, :, i]) / widths[i]) ** 2) for i, axis in enumerate((x, y))
    )
    z = rows @ columns.T
    z /= z.max()
    density = Density(x=x, y=y, z=z, level=0.0, n=len(real))
    return replace(density, level=float(np.quantile(density.at(part), 0.1)))
