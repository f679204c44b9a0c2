"""Exact privacy accounting of the mechanisms in this package.

An event describes what was done, never an epsilon that someone computed earlier; epsilon is
recomputed from events whenever it is shown. Every event names its neighbouring relation.

Gaussian (Balle & Wang 2018, Theorem 8): a sum of L2 sensitivity D with noise of standard deviation
s is (epsilon, delta)-DP exactly when, with mu = D / s,

    delta >= Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu),

and adaptive composition adds mu^2 (Dong, Roth & Su 2022).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rpsg.errors import PrivacyError

Relation = Literal["add/remove one unit", "replace one record"]
_MU_MAX = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianEvent:
    """Gaussian noise on a sum.

    Attributes:
        sensitivity_l2: largest L2 change of the sum between neighbours.
        std: standard deviation of the noise, in the unit of the sum.
        relation: which data sets are neighbours.
    """

    sensitivity_l2: float
    std: float
    relation: Relation

    @property
    def mu(self) -> float:
        """Sensitivity over noise: the parameter of Gaussian differential privacy."""
        return self.sensitivity_l2 / self.std


@dataclass(frozen=True, slots=True, kw_only=True)
class PureEvent:
    """A mechanism that is epsilon-DP (pure)."""

    epsilon: float
    relation: Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class NonPrivateEvent:
    """Something passed on without noise: epsilon is infinite."""

    reason: str


PrivacyEvent = GaussianEvent | PureEvent | NonPrivateEvent


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Returns the smallest delta of a mu-GDP mechanism at `epsilon`."""
    from scipy.special import log_ndtr

    if mu <= 0:
        return 0.0
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    # exp(first) - exp(second) without losing the small difference.
    return float(math.exp(first) * -math.expm1(min(0.0, second - first)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Returns the smallest epsilon >= 0 of a mu-GDP mechanism at `delta`."""
    from scipy.optimize import brentq

    _check_delta(delta)
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1
    return float(brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, high, xtol=1e-12))


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Returns the largest mu whose mechanism is (epsilon, delta)-DP."""
    from scipy.optimize import brentq

    _check_delta(delta)
    if not 0 < epsilon < math.inf:
        raise PrivacyError(f"epsilon must be a positive number (given: {epsilon})")
    return float(brentq(lambda mu: gaussian_delta(mu, epsilon) - delta, 1e-9, _MU_MAX, xtol=1e-12))


def calibrate_gaussian(epsilon: float, delta: float, *, n_releases: int = 1) -> float:
    """Returns the noise multiplier (noise std / L2 sensitivity) that `n_releases` share.

    Together, composed adaptively, they are (epsilon, delta)-DP.
    """
    return math.sqrt(n_releases) / gaussian_mu(epsilon, delta)


def compose(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Returns epsilon of all events together at `delta`.

    Gaussian events compose exactly; pure ones add to them. All finite events must share a relation.

    Raises:
        PrivacyError: the events are stated under different relations.
    """
    if any(isinstance(event, NonPrivateEvent) for event in events):
        return math.inf
    relations = {event.relation for event in events if not isinstance(event, NonPrivateEvent)}
    if len(relations) > 1:
        raise PrivacyError(f"events under different relations cannot be added: {sorted(relations)}")
    mu = math.sqrt(sum(event.mu**2 for event in events if isinstance(event, GaussianEvent)))
    pure = sum(event.epsilon for event in events if isinstance(event, PureEvent))
    return (gaussian_epsilon(mu, delta) if mu else 0.0) + pure


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


def round_up(value: float, digits: int) -> float:
    """Rounds a privacy figure up, so that what is shown is never smaller than what holds."""
    if math.isinf(value):
        return value
    scale = float(10**digits)
    return math.ceil(value * scale - 1e-9) / scale


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyError(f"delta must lie between 0 and 1 (given: {delta})")
