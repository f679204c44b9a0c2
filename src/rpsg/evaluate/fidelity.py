"""How near a synthetic set is to the real one, on embeddings."""

import numpy as np

from rpsg.types import FloatArray

_PARTNERS = 32


def frechet_distance(real: FloatArray, synthetic: FloatArray) -> float:
    """Frechet distance between Gaussians fitted to two sets of embeddings.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`; lower is nearer. It is biased upwards for small
    sets, so compare only figures from sets of equal size.

    Args:
        real: shape (n, d), n >= 2.
        synthetic: shape (m, d), m >= 2.
    """
    from scipy.linalg import eigh, eigvalsh

    real, synthetic = real.astype(np.float64), synthetic.astype(np.float64)
    shift = real.mean(axis=0) - synthetic.mean(axis=0)
    cov_real, cov_synthetic = np.cov(real, rowvar=False), np.cov(synthetic, rowvar=False)
    # tr((C1 C2)^(1/2)) = tr((C1^(1/2) C2 C1^(1/2))^(1/2)), symmetric and so free of complex roots.
    values, vectors = eigh(cov_real)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(eigvalsh(root @ cov_synthetic @ root), 0, None)).sum()
    return float(shift @ shift + np.trace(cov_real) + np.trace(cov_synthetic) - 2 * cross)


def cosine_to_seed(
    seeds: FloatArray, synthetic: FloatArray, *, rng: np.random.Generator
) -> tuple[float, float]:
    """Median cosine of each text to its own seed, and to other seeds drawn at random.

    Args:
        seeds: unit vectors, row i is the seed of row i of `synthetic`; shape (n, d), n >= 2.
        synthetic: unit vectors, shape (n, d).
        rng: pairs every text with up to 32 other seeds.
    """
    n = len(seeds)
    shifts = rng.choice(np.arange(1, n), size=min(n - 1, _PARTNERS), replace=False)
    own = np.sum(seeds * synthetic, axis=1)
    other = [np.sum(np.roll(seeds, shift, axis=0) * synthetic, axis=1) for shift in shifts]
    return float(np.median(own)), float(np.median(np.concatenate(other)))
