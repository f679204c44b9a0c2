"""The exact law of a noisy choice among a few candidates."""

import math
from collections.abc import Sequence


def permute_and_flip_probabilities(utilities: Sequence[float], epsilon: float) -> list[float]:
    """Returns the exact law of the noisy choice among candidates of these utilities in [0, 1].

    Permute-and-flip (McKenna & Sheldon 2020) visits the candidates in random order and stops at
    candidate j with probability q_j = exp(epsilon (u_j - max u) / 2). Averaging over orders,

        P(j) = q_j * integral over t in [0, 1] of the product over i != j of (1 - t q_i),

    because a candidate visited at "time" t finds each other one visited before with probability t.
    """
    import numpy as np

    top = max(utilities)
    stops = [math.exp(epsilon * (value - top) / 2) for value in utilities]
    chances = []
    for j, stop in enumerate(stops):
        product = np.polynomial.Polynomial([1.0])
        for i, other in enumerate(stops):
            if i != j:
                product *= np.polynomial.Polynomial([1.0, -other])
        chances.append(float(stop * product.integ()(1.0)))
    return chances


def permute_and_flip_best(epsilon: float, k: int) -> float:
    """Returns the chance that the best of `k` candidates is chosen, utilities evenly spaced in [0, 1]."""
    if k == 1:
        return 1.0
    return permute_and_flip_probabilities([i / (k - 1) for i in range(k)], epsilon)[-1]


def gaussian_argmax_epsilon(noise_multiplier: float, k: int) -> float:
    """Returns the pure epsilon of the index of the largest of `k` scores with Gaussian noise.

    Scores lie in [0, 1] and may all change. P(j) grows with u_j and falls with the others, so the worst
    pair of inputs is u_j = 1, others 0, against u_j = 0, others 1, and with s the noise multiplier

        epsilon = ln( E[Phi(Z + 1/s)^(k-1)] / E[Phi(Z - 1/s)^(k-1)] ).

    This is what the published selection (arXiv 2604.07486) costs, given its candidates.
    """
    from scipy.integrate import quad
    from scipy.special import ndtr

    def mean(shift: float) -> float:
        density = 1 / math.sqrt(2 * math.pi)
        value, _ = quad(
            lambda z: density * math.exp(-z * z / 2) * float(ndtr(z + shift)) ** (k - 1), -12, 12, limit=200
        )
        return float(value)

    return math.log(mean(1 / noise_multiplier) / mean(-1 / noise_multiplier))
