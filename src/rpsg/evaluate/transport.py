"""Distances that look at where every point lies: Wasserstein, Sinkhorn divergence, kernel MMD."""

import numpy as np

from rpsg.errors import NotComputable
from rpsg.evaluate.distances import BLOCK, Matrix, squared_distances
from rpsg.types import FloatArray

# The cost of exact transport grows with n^3 and its table with n^2.
MAX_EXACT = 1000
MAX_SINKHORN = 2000
# Regularisation of the Sinkhorn divergence, in units of half a squared distance of unit vectors. Of 60 real
# texts, 60 others and 60 shuffled ones, 0.05 sees as much in chance as in shuffling; 0.5 twice as much in it.
_REGULARISATION = 0.5
_MAX_ROUNDS = 2000
_TOLERANCE = 1e-7
_N_FOR_BANDWIDTH = 1000


def wasserstein(real: FloatArray, synthetic: FloatArray) -> float:
    """Wasserstein-1 distance of two point clouds, exactly: the mean length of the cheapest matching.

    Positions count, in Euclidean distance, not heights of bins. High-dimensional samples are far apart even
    when their distributions are equal, the more the fewer they are: compare equal sizes only.

    Args:
        real: shape (n, d).
        synthetic: shape (n, d), as many rows.
    """
    from scipy.optimize import linear_sum_assignment

    lengths = np.sqrt(squared_distances(real, synthetic))
    rows, columns = linear_sum_assignment(lengths)
    return float(lengths[rows, columns].mean())


def sinkhorn_divergence(
    real: FloatArray, synthetic: FloatArray, *, regularisation: float = _REGULARISATION
) -> float:
    """Debiased entropic transport cost with cost |x - y|^2 / 2 (Genevay et al. 2018, Feydy et al. 2019).

    S(x, y) = T(x, y) - T(x, x) / 2 - T(y, y) / 2, where T is the optimal cost plus `regularisation` times
    the relative entropy of the plan to the product of both sets. It is zero for equal sets, and the bias of
    small samples is far lower than that of the Wasserstein distance.

    Args:
        real: shape (n, d).
        synthetic: shape (m, d).
        regularisation: in units of the cost.

    Raises:
        NotComputable: the vectors are too long for this regularisation; scale them to unit length.
    """
    cross = _transport_cost(real, synthetic, regularisation)
    own = _self_cost(real, regularisation) + _self_cost(synthetic, regularisation)
    return max(0.0, cross - own / 2)


def _transport_cost(one: FloatArray, other: FloatArray, regularisation: float) -> float:
    # The plan is u_i K_ij v_j / (n m) with uniform marginals; at the optimum the cost is the mean of the
    # potentials, the logarithms of u and v.
    kernel = _kernel(one, other, regularisation)
    n, m = kernel.shape
    v = np.ones(m)
    for _ in range(_MAX_ROUNDS):
        u = 1 / (kernel @ v / m)
        before, v = v, 1 / (u @ kernel / n)
        if np.abs(before / v - 1).mean() < _TOLERANCE:
            break
    return float(regularisation * (np.log(u).mean() + np.log(v).mean()))


def _self_cost(vectors: FloatArray, regularisation: float) -> float:
    # Of a set to itself u = v, and averaging in the logarithm converges in a few rounds.
    kernel = _kernel(vectors, vectors, regularisation)
    u = np.ones(len(kernel))
    for _ in range(_MAX_ROUNDS):
        ratio = 1 / (u * (kernel @ u) / len(u))
        u *= np.sqrt(ratio)
        if np.abs(ratio - 1).mean() < _TOLERANCE:
            break
    return float(2 * regularisation * np.log(u).mean())


def _kernel(one: FloatArray, other: FloatArray, regularisation: float) -> Matrix:
    cost = squared_distances(one, other)
    if cost.max() > 1000 * regularisation:
        raise NotComputable("the vectors are too long for the Sinkhorn divergence; scale them to unit length")
    cost /= -2 * regularisation
    return np.exp(cost, out=cost)


def bandwidth_of(real: FloatArray) -> float:
    """Median squared distance between rows of the real set, of at most 1,000 of them."""
    # Spread over all rows: files are often sorted.
    part = real[np.linspace(0, len(real) - 1, min(len(real), _N_FOR_BANDWIDTH)).astype(np.int64)]
    found = squared_distances(part, part)[np.triu_indices(len(part), 1)]
    return float(np.median(found))


def squared_mmd(real: FloatArray, synthetic: FloatArray) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, equation 3).

    The kernel is exp(-|x - y|^2 / s^2), s^2 the median squared distance of real rows. Being unbiased it is
    around 0 for equal distributions of any size and may be negative.

    Args:
        real: shape (n, d), n >= 2.
        synthetic: shape (m, d), m >= 2.

    Raises:
        NotComputable: most real rows are the same.
    """
    scale = bandwidth_of(real)
    if scale <= 1e-9:
        raise NotComputable("most real texts have the same embedding")
    # In single precision differences drown in what all rows have in common.
    center = real.mean(axis=0, dtype=np.float64)
    real, synthetic = (part - center for part in (real, synthetic))
    own = sum(_mean_kernel(part, part, scale, without_self=True) for part in (real, synthetic))
    return own - 2 * _mean_kernel(real, synthetic, scale, without_self=False)


def _mean_kernel(one: FloatArray, other: FloatArray, scale: float, *, without_self: bool) -> float:
    # Single precision: kernel values are exact to 1e-6 and their errors average out.
    left, right = (part.astype(np.float32, copy=False) / np.float32(scale**0.5) for part in (one, other))
    norms = np.einsum("ij,ij->i", right, right)
    total = 0.0
    for start in range(0, len(left), BLOCK):
        rows = left[start : start + BLOCK]
        block = rows @ right.T
        block *= 2
        block -= np.einsum("ij,ij->i", rows, rows)[:, None]
        block -= norms[None, :]
        total += float(np.exp(block, out=block).sum(axis=1).astype(np.float64).sum())
    n, m = len(one), len(other)
    return (total - n) / (n * (n - 1)) if without_self else total / (n * m)
