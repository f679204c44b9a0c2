"""Rank candidates by a vote's noisy counts: kernel herding (Chen, Welling and Smola, arXiv 1203.3472)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rpsg.types import FloatArray

Reals = npt.NDArray[np.float64]

# The kernel's width, as a share of the candidates' mean distance (docs/end-to-end.md has the figures).
WIDTH = 0.5
# Votes count in full where their sum is this many times what noise alone makes of it.
SURE = 5.0
BLOCK = 512
_DIGITS = 9
# Against distances that are all zero.
_LEAST_WIDTH = 1e-3


def rank_by_herding(counts: Sequence[float], vectors: FloatArray, *, noise: float) -> list[int]:
    """Orders candidates so that the first n are spread as the votes are, while there are enough of each kind.

    Noise is drawn for each candidate on its own, so it decides how the counts rank candidates that are alike.
    A mean of the counts around each would drop that noise, but rank the commonest topic first, alone. Here a
    candidate's place follows from the noisy votes near it, less the candidates near it that stand before it:
    each next one brings the mean of those taken nearest to that of the votes in the kernel's feature space
    (maximum mean discrepancy). The noise of many candidates cancels out in that mean.

    The votes' distribution is that of all candidates, corrected by the counts: 1/m + (count - mean) / total.
    Where few people voted, the sum of the counts may be near 0 by noise; the total is then at least `SURE`
    times the noise of that sum, and the order comes near to one that represents the candidates.

    It reads released counts, and vectors of candidates that are functions of earlier releases and public
    inputs: post-processing, which costs no budget.

    Two candidates are worth exp((cosine - 1) / w) to each other, w being `WIDTH` times the mean of 1 - cosine
    over all pairs, so that another embedder needs no other setting. Time is m^2 times the dimension, memory
    that of `BLOCK` candidates times all.

    Args:
        counts: a vote's released counts, shape (m,).
        vectors: unit vectors of the same candidates, shape (m, d).
        noise: standard deviation of each count's noise.

    Returns:
        Indices of all candidates, the best first. Ties go to the lower index.
    """
    values, rows = np.asarray(counts, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
    m = len(values)
    if not m:
        return []
    # The mean of all inner products is the squared norm of the mean vector.
    width = max(WIDTH * (1 - float(np.sum(rows.mean(axis=0) ** 2))), _LEAST_WIDTH)
    total = max(float(values.sum()), SURE * noise * np.sqrt(m), 1.0)
    open_gain = _around(rows, 1 / m + (values - values.mean()) / total, width)
    taken = np.zeros(m)
    order: list[int] = []
    for place in range(1, m + 1):
        # Rounded: equal texts differ by the order of summation.
        best = int(np.argmax(np.round(open_gain - taken / place, _DIGITS)))
        order.append(best)
        open_gain[best] = -np.inf
        taken += _kernel(rows @ rows[best], width)
    return order


def _around(rows: Reals, weights: Reals, width: float) -> Reals:
    """Sums the weights around each candidate; shape (m,)."""
    starts = range(0, len(rows), BLOCK)
    return np.concatenate(
        [_kernel(rows[start : start + BLOCK] @ rows.T, width) @ weights for start in starts]
    )


def _kernel(cosines: Reals, width: float) -> Reals:
    cosines -= 1.0
    cosines /= width
    return np.exp(cosines, out=cosines)
