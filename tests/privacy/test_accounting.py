import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpsg.errors import PrivacyError
from rpsg.privacy.accounting import (
    GaussianEvent,
    NonPrivateEvent,
    PureEvent,
    calibrate_gaussian,
    compose,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    permute_and_flip_best,
    permute_and_flip_probabilities,
    round_up,
)

# AUG-PE (arXiv 2403.01749), 10 epochs, delta = 1 / (N ln N): the published noise, found there by search.
AUG_PE = [
    (75_316, 1, 13.26), (75_316, 2, 7.01), (75_316, 4, 3.75),
    (8_396, 1, 11.60), (8_396, 2, 6.22), (8_396, 4, 3.38),
    (1_939_290, 1, 15.34), (1_939_290, 2, 8.03), (1_939_290, 4, 4.24),
]  # fmt: skip
RELATION = "add/remove one unit"


@pytest.mark.parametrize(("n", "epsilon", "sigma"), AUG_PE)
def test_noise_of_ten_releases_is_the_published_one(n: int, epsilon: float, sigma: float) -> None:
    delta = 1 / (n * math.log(n))
    assert calibrate_gaussian(epsilon, delta, n_releases=10) == pytest.approx(sigma, rel=0.005)


@given(st.floats(0.05, 20), st.floats(1e-12, 0.1))
@settings(deadline=None, max_examples=200)
def test_epsilon_to_noise_and_back(epsilon: float, delta: float) -> None:
    assert gaussian_epsilon(gaussian_mu(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("noise", [0.5, 1.194, 4.22])
@pytest.mark.parametrize("n_releases", [1, 3])
def test_closed_form_equals_the_numerical_accountant(noise: float, n_releases: int) -> None:
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    events = [GaussianEvent(sensitivity_l2=1, std=noise, relation=RELATION)] * n_releases
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(noise), n_releases))
    theirs = accountant.get_epsilon(1e-6)
    assert compose(events, 1e-6) == pytest.approx(theirs, rel=1e-3)
    assert compose(events, 1e-6) <= theirs + 1e-6  # theirs rounds up


def test_delta_decreases_with_epsilon_and_grows_with_mu() -> None:
    grid = [gaussian_delta(1.0, epsilon) for epsilon in np.linspace(0, 10, 50)]
    assert grid == sorted(grid, reverse=True)
    assert gaussian_delta(0.5, 1.0) < gaussian_delta(1.0, 1.0) < gaussian_delta(2.0, 1.0)
    # Total variation of two unit Gaussians one apart.
    assert gaussian_delta(1.0, 0.0) == pytest.approx(0.3829249, abs=1e-6)


def test_composition() -> None:
    gaussian = GaussianEvent(sensitivity_l2=2, std=4, relation=RELATION)
    assert compose([gaussian] * 4, 1e-6) == pytest.approx(gaussian_epsilon(1.0, 1e-6))
    pure = PureEvent(epsilon=1.5, relation=RELATION)
    assert compose([pure, pure], 1e-6) == 3.0
    assert compose([gaussian, pure], 1e-6) == pytest.approx(gaussian_epsilon(0.5, 1e-6) + 1.5)
    assert compose([gaussian, NonPrivateEvent(reason="texts")], 1e-6) == math.inf
    assert compose([], 1e-6) == 0.0


def test_events_under_different_relations_are_not_added() -> None:
    with pytest.raises(PrivacyError, match="different relations"):
        compose(
            [
                PureEvent(epsilon=1, relation="replace one record"),
                GaussianEvent(sensitivity_l2=1, std=1, relation=RELATION),
            ],
            1e-6,
        )


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-6, math.nan])
def test_delta_must_be_a_probability(delta: float) -> None:
    with pytest.raises(PrivacyError, match="delta"):
        gaussian_mu(1.0, delta)


def by_enumeration(utilities: list[float], epsilon: float) -> list[float]:
    stops = [math.exp(epsilon * (value - max(utilities)) / 2) for value in utilities]
    chances = [0.0] * len(utilities)
    orders = list(itertools.permutations(range(len(utilities))))
    for order in orders:
        left = 1.0
        for j in order:
            chances[j] += left * stops[j] / len(orders)
            left *= 1 - stops[j]
    return chances


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("utilities", [[0.3], [0.2, 0.9], [0.0, 0.5, 0.5, 1.0], [0.1, 0.4, 0.35, 0.9, 0.7]])
def test_law_of_the_noisy_choice(utilities: list[float], epsilon: float) -> None:
    ours = permute_and_flip_probabilities(utilities, epsilon)
    assert ours == pytest.approx(by_enumeration(utilities, epsilon), abs=1e-12)
    assert sum(ours) == pytest.approx(1.0)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6),
    st.sampled_from([0.5, 1.0, 4.0]),
)
@settings(deadline=None, max_examples=300)
def test_the_choice_is_pure_dp_when_every_utility_may_change(
    pairs: list[tuple[float, float]], epsilon: float
) -> None:
    first = permute_and_flip_probabilities([a for a, _ in pairs], epsilon)
    second = permute_and_flip_probabilities([b for _, b in pairs], epsilon)
    for p, q in zip(first, second, strict=True):
        assert p <= math.exp(epsilon) * q * (1 + 1e-9)


def test_chance_of_the_best_lies_between_blind_and_certain() -> None:
    assert permute_and_flip_best(1e-9, 5) == pytest.approx(1 / 5, abs=1e-6)
    assert permute_and_flip_best(1e4, 5) == pytest.approx(1.0, abs=1e-6)
    assert permute_and_flip_best(4, 1) == 1.0
    assert permute_and_flip_best(4, 5) == pytest.approx(0.51, abs=0.005)


def test_privacy_figures_are_rounded_up() -> None:
    assert round_up(3.99951, 3) == 4.0
    assert round_up(1.0001, 3) == 1.001
    assert round_up(1.0, 3) == 1.0
    assert round_up(math.inf, 3) == math.inf
