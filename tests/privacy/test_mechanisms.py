import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from rpsg.errors import PrivacyError
from rpsg.privacy.accounting import gaussian_delta, permute_and_flip_probabilities
from rpsg.privacy.mechanisms import GRID_STEPS, GaussianVotes, NoisyMax, Votes
from rpsg.privacy.noise import FixedNoise, SecureNoise

N_ITEMS = 7


def random_votes(rng: np.random.Generator, n_units: int) -> Votes:
    n = int(rng.integers(0, 25))
    return Votes(
        units=rng.integers(0, n_units, n),
        items=rng.integers(-1, N_ITEMS + 1, n),
        weights=rng.choice([1.0, 0.3, -2.0, 1e9, -1e9, np.nan, np.inf, 1e-12], n),
    )


def without(votes: Votes, unit: int) -> Votes:
    kept = votes.units != unit
    return Votes(units=votes.units[kept], items=votes.items[kept], weights=votes.weights[kept])


def test_one_unit_cannot_move_the_counts_by_more_than_one() -> None:
    rng = np.random.default_rng(0)
    mechanism = GaussianVotes(noise_multiplier=1.0, n_items=N_ITEMS)
    largest = 0.0
    for _ in range(10_000):
        votes = random_votes(rng, n_units=4)
        moved = mechanism.clipped_sum(votes) - mechanism.clipped_sum(without(votes, 0))
        largest = max(largest, float(np.linalg.norm(moved)) / GRID_STEPS)
    assert 0.99 < largest <= 1.0


@pytest.mark.parametrize("source", [SecureNoise(), FixedNoise(3)], ids=["secure", "fixed"])
def test_noise_has_the_scale_that_is_accounted_for(source: SecureNoise | FixedNoise) -> None:
    mechanism = GaussianVotes(noise_multiplier=2.0, n_items=20_000)
    nothing = Votes(units=np.empty(0, np.int64), items=np.empty(0, np.int64), weights=np.empty(0))
    drawn = np.asarray(mechanism.sample(nothing, source))
    assert stats.kstest(drawn, "norm", args=(0, 2.0)).pvalue > 1e-4
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(drawn, "norm", args=(0, 2.0 * wrong)).pvalue < 1e-12


def test_released_counts_cannot_tell_neighbours_apart_better_than_accounted() -> None:
    # The best test on one count for a unit's vote: its power must stay below the accounted bound.
    mechanism = GaussianVotes(noise_multiplier=1.0, n_items=1)
    vote = Votes(units=np.zeros(1, np.int64), items=np.zeros(1, np.int64), weights=np.ones(1))
    noise = SecureNoise()
    base = 20_000
    nothing = np.zeros(base, np.int64)
    without_vote = noise.gaussian(nothing, GRID_STEPS) / GRID_STEPS
    with_vote = noise.gaussian(nothing + mechanism.clipped_sum(vote)[0], GRID_STEPS) / GRID_STEPS
    advantage = float(np.mean(with_vote > 0.5) - np.mean(without_vote > 0.5))
    assert advantage == pytest.approx(gaussian_delta(1.0, 0.0), abs=0.02)


@pytest.mark.parametrize("source", [SecureNoise(), FixedNoise(5)], ids=["secure", "fixed"])
@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_choice_follows_its_law(source: SecureNoise | FixedNoise, epsilon: float) -> None:
    utilities = [0.1, 0.5, 0.45, 0.9, 0.2]
    n = 8000
    drawn = NoisyMax(epsilon=epsilon, n_candidates=5).sample({str(i): utilities for i in range(n)}, source)
    assert isinstance(drawn, dict)
    counts = Counter(drawn.values())
    expected = np.asarray(permute_and_flip_probabilities(utilities, epsilon)) * n
    observed = [counts[i] for i in range(5)]
    assert stats.chisquare(observed, expected).pvalue > 1e-4
    wrong = np.asarray(permute_and_flip_probabilities(utilities, epsilon * 1.5)) * n
    assert stats.chisquare(observed, wrong).pvalue < 1e-6


def test_utilities_are_clipped_by_the_mechanism() -> None:
    # Without clipping the huge value would be chosen every time.
    lists = {str(i): [1e9, 1.0] for i in range(2000)}
    drawn = NoisyMax(epsilon=1.0, n_candidates=2).sample(lists, SecureNoise())
    assert isinstance(drawn, dict)
    assert 0.45 < sum(drawn.values()) / 2000 < 0.55
    with_nan = {str(i): [math.nan, -math.inf, 1.0] for i in range(10)}
    assert NoisyMax(epsilon=1.0, n_candidates=3).sample(with_nan, SecureNoise())


@pytest.mark.parametrize("utilities", [[], [0.5] * 6])
def test_more_candidates_than_accounted_for_are_refused(utilities: list[float]) -> None:
    with pytest.raises(PrivacyError, match="1 to 5"):
        NoisyMax(epsilon=1.0, n_candidates=5).sample({"r": utilities}, SecureNoise())


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_noise_that_is_not_positive_is_refused(bad: float) -> None:
    votes = Votes(units=np.zeros(1, np.int64), items=np.zeros(1, np.int64), weights=np.ones(1))
    with pytest.raises(PrivacyError):
        GaussianVotes(noise_multiplier=bad, n_items=1).sample(votes, SecureNoise())
    with pytest.raises(PrivacyError):
        NoisyMax(epsilon=bad, n_candidates=2).sample({"r": [0.1]}, SecureNoise())


def test_votes_do_not_print_themselves() -> None:
    votes = Votes(units=np.asarray([424242]), items=np.asarray([1]), weights=np.ones(1))
    assert "424242" not in repr(votes) + str(votes)
