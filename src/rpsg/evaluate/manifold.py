"""Does each synthetic text lie where real ones are, and each real one where synthetic ones are?"""

import math
from dataclasses import dataclass

import numpy as np

from rpsg.errors import NotComputable
from rpsg.evaluate.distances import Matrix, distance_blocks
from rpsg.types import FloatArray

# Kynkaanniemi 2019 takes 3 neighbours; Naeem 2020 takes 5, so that identical distributions get a coverage
# near 1 - 2^-5.
NEIGHBOURS = 3
NEIGHBOURS_OF_COVERAGE = 5
# Unit vectors nearer than this are of the same text.
_SAME = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhoods:
    """Precision, recall, density and coverage of one pair of data sets."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(
    real: FloatArray,
    synthetic: FloatArray,
    *,
    k: int = NEIGHBOURS,
    k_coverage: int = NEIGHBOURS_OF_COVERAGE,
) -> Neighbourhoods:
    """Compares two data sets by the balls that reach from each row to its k-th nearest neighbour.

    Precision is the share of synthetic rows in any real ball, recall the share of real rows in any
    synthetic ball (Kynkaanniemi et al. 2019, equations 1 and 2). Density is the number of real balls around
    a synthetic row over k, about 1 for equal distributions and above it where synthetic rows crowd where
    real ones do; coverage is the share of real balls that hold a synthetic row (Naeem et al. 2020,
    equations 4 and 7). All depend on the number of rows; compare equal sizes only.

    Args:
        real: shape (n, d), n > k.
        synthetic: shape (m, d), m > k.
        k: neighbour of precision and recall.
        k_coverage: neighbour of density and coverage.

    Returns:
        The four figures. Precision and density are NaN where most synthetic rows have copies: one
        realistic text, repeated, would be perfect.

    Raises:
        NotComputable: a set has too few rows.
    """
    ks = (k, k_coverage)
    (near_real, far_real), (near_synthetic, far_synthetic) = _radii(real, ks), _radii(synthetic, ks)
    inside = np.zeros(len(synthetic), dtype=bool)
    n_recalled = n_in_balls = n_covered = 0
    for rows, block in distance_blocks(real, synthetic):
        inside |= (block < near_real[rows, None]).any(axis=0)
        n_recalled += int((block < near_synthetic[None, :]).any(axis=1).sum())
        within = block < far_real[rows, None]
        n_in_balls += int(within.sum())
        n_covered += int(within.any(axis=1).sum())
    return Neighbourhoods(
        precision=math.nan if _is_collapsed(near_synthetic) else float(inside.mean()),
        recall=n_recalled / len(real),
        density=math.nan if _is_collapsed(far_synthetic) else n_in_balls / (k_coverage * len(synthetic)),
        coverage=n_covered / len(real),
    )


def _radii(vectors: FloatArray, ks: tuple[int, ...]) -> list[Matrix]:
    # Squared distance of each row to its k-th nearest other row.
    if len(vectors) <= max(ks):
        raise NotComputable(f"{len(vectors)} rows have no {max(ks)}-th neighbour")
    radii = np.empty((len(ks), len(vectors)))
    kth = [k - 1 for k in ks]
    for rows, block in distance_blocks(vectors, vectors):
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = np.inf
        radii[:, rows] = np.partition(block, kth, axis=1)[:, kth].T
    return list(radii)


def _is_collapsed(radii: Matrix) -> bool:
    return float(np.mean(radii < _SAME**2)) > 0.5
