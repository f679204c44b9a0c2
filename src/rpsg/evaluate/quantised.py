"""MAUVE, KL divergence and total variation: both sets sorted into common clusters, then compared."""

import numpy as np
import numpy.typing as npt

from rpsg.errors import NotComputable
from rpsg.evaluate.distances import Matrix, distance_blocks
from rpsg.types import FloatArray

_SCALE = 5.0
_N_MIXTURES = 25
_ROWS_PER_CLUSTER = 10
_EXPLAINED = 0.9
_ROUNDS = 30


def quantise(
    real: FloatArray, synthetic: FloatArray, *, rng: np.random.Generator, n_clusters: int | None = None
) -> tuple[Matrix, Matrix]:
    """Clusters both sets together and returns the share of each set in each cluster.

    As in Pillutla et al. 2021 (section 2): unit vectors, principal components that hold 90 % of the
    variance, k-means with a tenth as many clusters as rows.

    Args:
        real: shape (n, d).
        synthetic: shape (m, d).
        rng: starts k-means.
        n_clusters: another number of clusters.

    Returns:
        Two histograms that sum to 1, shape (n_clusters,).

    Raises:
        NotComputable: the rows are all the same.
    """
    n_clusters = n_clusters or max(2, round(min(len(real), len(synthetic)) / _ROWS_PER_CLUSTER))
    both = np.concatenate([real, synthetic]).astype(np.float64)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
    found = k_means(_project(both), n_clusters, rng=rng)
    shares = [
        np.bincount(part, minlength=n_clusters) / len(part)
        for part in (found[: len(real)], found[len(real) :])
    ]
    return shares[0], shares[1]


def mauve(p: Matrix, q: Matrix, *, scale: float = _SCALE) -> float:
    """Area under the divergence frontier of two histograms (Pillutla et al. 2021, equations 1 to 3).

    The frontier holds, for mixtures r = w p + (1 - w) q, the points (exp(-c KL(q|r)), exp(-c KL(p|r))),
    from (0, 1) to (1, 0). The area is in (0, 1]; 1 means equal histograms. Small samples lower it.

    Args:
        p: shares of the real set, shape (k,).
        q: shares of the synthetic set, shape (k,).
        scale: c.
    """
    weights = np.linspace(1e-6, 1 - 1e-6, _N_MIXTURES)
    points = [(0.0, 1.0), (1.0, 0.0)]
    for weight in weights:
        mixture = weight * p + (1 - weight) * q
        points.append(
            (np.exp(-scale * _relative_entropy(q, mixture)), np.exp(-scale * _relative_entropy(p, mixture)))
        )
    points.sort(key=lambda point: (point[0], -point[1]))
    xs, ys = np.array(points).T
    return float(np.trapezoid(ys, xs))


def kl_divergence(p: Matrix, q: Matrix, *, n: int) -> float:
    """Kullback-Leibler divergence of the real from the synthetic histogram, in nats.

    Half a row is added to every cluster (Krichevsky-Trofimov), or an empty one would make it infinite.

    Args:
        p: shares of the real set, shape (k,).
        q: shares of the synthetic set, shape (k,).
        n: rows of each set.
    """
    smooth_p, smooth_q = ((shares * n + 0.5) / (n + 0.5 * len(shares)) for shares in (p, q))
    return _relative_entropy(smooth_p, smooth_q)


def total_variation(p: Matrix, q: Matrix) -> float:
    """Half the absolute difference of two histograms: 0 equal, 1 nothing in common."""
    return float(0.5 * np.abs(p - q).sum())


def k_means(points: Matrix, n_clusters: int, *, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Lloyd's algorithm from k-means++ centres.

    Args:
        points: shape (n, d).
        n_clusters: at most n.
        rng: picks the first centres.

    Returns:
        Cluster of each point, shape (n,).
    """
    centres = _first_centres(points, n_clusters, rng)
    found = np.full(len(points), -1, dtype=np.int64)
    for _ in range(_ROUNDS):
        before = found
        found = np.concatenate([block.argmin(axis=1) for _, block in distance_blocks(points, centres)])
        if np.array_equal(found, before):
            break
        sizes = np.bincount(found, minlength=n_clusters)
        order = np.argsort(found, kind="stable")
        filled = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[filled]
        # An empty cluster keeps its centre.
        centres[filled] = np.add.reduceat(points[order], starts, axis=0) / sizes[filled, None]
    return found


def _first_centres(points: Matrix, n_clusters: int, rng: np.random.Generator) -> Matrix:
    norms = np.einsum("ij,ij->i", points, points)
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < n_clusters:
        last = points[chosen[-1]]
        nearest = np.minimum(nearest, np.maximum(norms - 2 * points @ last + last @ last, 0))
        total = np.cumsum(nearest)
        chosen.append(int(np.searchsorted(total, rng.random() * total[-1])))
    return points[chosen].copy()


def _project(points: Matrix) -> Matrix:
    from scipy.linalg import eigh

    centred = points - points.mean(axis=0)
    values, vectors = eigh(centred.T @ centred)
    values = np.clip(values[::-1], 0, None)
    if values.sum() < 1e-9 * len(points):
        raise NotComputable("all texts of both sets have the same embedding")
    n_kept = int(np.searchsorted(np.cumsum(values) / values.sum(), _EXPLAINED)) + 1
    projected: Matrix = centred @ vectors[:, ::-1][:, :n_kept]
    return projected


def _relative_entropy(p: Matrix, q: Matrix) -> float:
    filled = p > 0
    return float(np.sum(p[filled] * np.log(p[filled] / q[filled])))
