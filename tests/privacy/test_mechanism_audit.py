"""Attacks the Gaussian vote as shipped, with the secure source, and compares with what is claimed.

The worst case: a unit whose whole vote goes to one item. Telling the noisy counts with and without it apart
gives, at one-sided confidence 99.99 %, a lower bound on epsilon. A bound above the claim refutes it; a bound
far below it shows that the test is too weak to refute anything.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rpsg.audit.lower_bounds import gaussian_mu_bound
from rpsg.privacy.accounting import calibrate_gaussian, gaussian_epsilon, gaussian_mu
from rpsg.privacy.mechanisms import GaussianSum, PrivateRows
from rpsg.privacy.noise import NoiseSource, SecureNoise

EPSILON, DELTA = 4.0, 1.18e-6
CONFIDENCE = 0.9999
Values = npt.NDArray[np.float64]


class TooQuiet(SecureNoise):
    """The secure source with less noise than it is asked for."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def gaussian(self, values: np.ndarray, std: float) -> np.ndarray:
        return super().gaussian(values, self._factor * std)


def draw(mechanism: GaussianSum, noise: NoiseSource, *, with_unit: bool) -> Values:
    """Draws as many independent trials as there are items: each item is a world of its own."""
    n = mechanism.n_items if with_unit else 0
    votes = PrivateRows(units=np.arange(n), items=np.arange(n), weights=np.ones(n))
    return np.asarray(mechanism.sample(votes, noise))


def attack(without: Values, with_unit: Values, threshold: float, *, confidence: float) -> float:
    false_positives, false_negatives = int((without > threshold).sum()), int((with_unit <= threshold).sum())
    n = len(without)
    return gaussian_mu_bound(n - false_negatives, n, false_positives, n, level=confidence)


def epsilon_lower_bound(noise: NoiseSource, n: int) -> float:
    """Returns the bound at the claim's delta; the threshold is chosen on trials of its own."""
    claimed = GaussianSum(noise_multiplier=calibrate_gaussian(EPSILON, DELTA), n_items=n)
    tried = GaussianSum(noise_multiplier=claimed.noise_multiplier, n_items=max(n // 5, 2000))
    sides = [draw(tried, noise, with_unit=side) for side in (False, True)]
    thresholds = np.linspace(-0.5, 1.5, 41)
    best = max(thresholds, key=lambda t: attack(sides[0], sides[1], float(t), confidence=CONFIDENCE))
    without, with_unit = (draw(claimed, noise, with_unit=side) for side in (False, True))
    mu = attack(without, with_unit, float(best), confidence=CONFIDENCE)
    return gaussian_epsilon(mu, DELTA)


def claimed_epsilon() -> float:
    """Returns what the mechanism's own event says it costs."""
    (event,) = GaussianSum(noise_multiplier=calibrate_gaussian(EPSILON, DELTA), n_items=1).events
    return gaussian_epsilon(event.mu, DELTA)  # type: ignore[union-attr]


def test_the_claim_is_the_one_that_is_audited() -> None:
    assert claimed_epsilon() == pytest.approx(EPSILON, abs=1e-6)
    assert gaussian_mu(EPSILON, DELTA) == pytest.approx(0.843, abs=5e-4)


def test_the_bound_is_below_the_truth_as_often_as_its_confidence_says() -> None:
    # Ideal Gaussian trials at a confidence low enough to see it miss: 95 % of 400 is 380, sd 4.4.
    rng = np.random.default_rng(0)
    bounds = [attack(rng.normal(0, 1, 300), rng.normal(1, 1, 300), 0.5, confidence=0.95) for _ in range(400)]
    assert sum(bound <= 1.0 for bound in bounds) >= 362
    assert max(bounds) > 0.9


def test_a_small_audit_of_the_vote_finds_most_of_its_epsilon_and_no_more() -> None:
    # At 10^4 trials a side and 99.99 % the expected bound is 3.5 with a standard deviation of 0.09.
    bound = epsilon_lower_bound(SecureNoise(), 10_000)
    assert 3.0 <= bound <= claimed_epsilon()


def test_a_small_audit_refutes_a_fifth_less_noise() -> None:
    # So few trials cannot refute a tenth less (expected bound 4.0); the full-size audit does.
    assert epsilon_lower_bound(TooQuiet(0.8), 10_000) > EPSILON


@pytest.mark.prove
def test_the_audit_of_the_vote_is_tight(record_proof: Callable[..., Any]) -> None:
    n = 100_000
    honest, quiet = epsilon_lower_bound(SecureNoise(), n), epsilon_lower_bound(TooQuiet(0.9), n)
    missed = [] if 3.6 <= honest <= EPSILON else [f"lower bound with the shipped noise: {honest:.3f}"]
    missed += [] if quiet > EPSILON else [f"lower bound with 0.9 of the noise: {quiet:.3f}"]
    figures = {
        "claimed epsilon": EPSILON,
        "delta": DELTA,
        "trials a side": n,
        "one-sided confidence": CONFIDENCE,
        "epsilon, lower bound": honest,
        "epsilon, lower bound, noise x 0.9": quiet,
    }
    record_proof("mechanism audit, Gaussian vote", figures, missed=missed)
    assert missed == []
