"""Lower bounds of epsilon: golden values, and that they are seldom above the truth."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom, norm

from rpsg.audit.lower_bounds import (
    fdp_one_run_epsilon,
    gaussian_mechanism_epsilon,
    gaussian_mu_bound,
    one_run_epsilon,
    power_table,
    two_sided_epsilon,
)
from rpsg.privacy.accounting import gaussian_mu


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "expected"),
    [(1000, 100, 90, 0.0, 1.6308), (1000, 100, 90, 1e-5, 1.6261), (500, 500, 300, 1e-5, 0.2514)],
)
def test_one_run_golden_values(m: int, r: int, v: int, delta: float, expected: float) -> None:
    assert one_run_epsilon(m, r, v, delta) == pytest.approx(expected, abs=1e-4)


def test_two_sided_golden_value() -> None:
    assert two_sided_epsilon(80, 100, 5, 100, 1e-5) == pytest.approx(1.8367, abs=1e-4)
    # The other direction: everything is a hit, but nothing passes without the unit.
    assert two_sided_epsilon(95, 100, 20, 100, 1e-5) == pytest.approx(1.8367, abs=1e-4)
    assert two_sided_epsilon(50, 100, 50, 100) == 0.0


def test_gaussian_golden_value() -> None:
    assert gaussian_mu_bound(80, 100, 5, 100) == pytest.approx(1.7596, abs=1e-4)
    assert gaussian_mechanism_epsilon(80, 100, 5, 100, 1e-5) == pytest.approx(8.55, abs=5e-3)
    assert gaussian_mu_bound(0, 10, 0, 10) == 0.0


@pytest.mark.parametrize(("n", "expected"), [(200, 2.14), (1_000, 3.13), (10_000, 3.73), (100_000, 3.91)])
def test_the_gaussian_bound_of_the_vote_histogram(n: int, expected: float) -> None:
    # Claimed epsilon 4, threshold mu / 2, the expected number of errors on each side.
    mu, delta = gaussian_mu(4.0, 1.18e-6), 1.18e-6
    errors = round(n * float(norm.cdf(-mu / 2)))
    assert gaussian_mechanism_epsilon(n - errors, n, errors, n, delta) == pytest.approx(expected, abs=6e-3)
    assert expected <= 4.0
    # The exact rates alone find little of it.
    assert two_sided_epsilon(n - errors, n, errors, n, delta) < 1.0


@pytest.mark.parametrize(("n", "known"), [(200, 2.69), (1_000, 3.36), (10_000, 3.79), (100_000, 3.91)])
def test_values_known_of_single_experiments_are_of_the_size_that_experiments_give(
    n: int, known: float
) -> None:
    mu, delta, rng = gaussian_mu(4.0, 1.18e-6), 1.18e-6, np.random.default_rng(0)
    missed, false = rng.binomial(n, norm.cdf(-mu / 2), (2, 200))
    found = [gaussian_mechanism_epsilon(n - m, n, f, n, delta) for m, f in zip(missed, false, strict=True)]
    assert np.quantile(found, 0.025) <= known <= np.quantile(found, 0.975)
    # One audit in forty may exceed what is true; the bound is one-sided at 97.5 % for each rate.
    assert np.mean(np.array(found) > 4.0) <= 0.05


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "expected"),
    [
        (1000, 100, 90, 1e-5, 2.45641),
        (500, 500, 300, 1e-5, 0.52002),
        (100, 100, 100, 1e-5, 8.21619),
        (1000, 50, 50, 1e-5, 4.06191),
        (5000, 1000, 800, 1e-6, 2.09670),
    ],
)
def test_the_f_dp_bound_agrees_with_another_implementation(
    m: int, r: int, v: int, delta: float, expected: float
) -> None:
    # Printed by jax-privacy's auditing._epsilon_one_run_fdp(1e-6, m, r, v, 0.05, delta).
    assert fdp_one_run_epsilon(m, r, v, delta, curve="Gaussian") == pytest.approx(expected, abs=1e-4)


def test_a_guess_at_random_refutes_nothing() -> None:
    assert one_run_epsilon(200, 200, 104, 1e-5) == 0.0
    assert fdp_one_run_epsilon(200, 200, 104, 1e-5) == 0.0
    assert fdp_one_run_epsilon(200, 200, 104, 1e-5, curve="Gaussian") == 0.0
    assert one_run_epsilon(10, 10, 0, 1e-5) == 0.0


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_one_run_bounds_of_randomised_response_are_above_the_truth_in_five_per_cent_at_most(
    epsilon: float,
) -> None:
    # Randomised response attains the bound, so the number right is binomial and the chance is computed.
    m, q = 60, float(expit(epsilon))
    for bound in (one_run_epsilon, fdp_one_run_epsilon):
        too_high = [v for v in range(1, m + 1) if bound(m, m, v, 1e-9) > epsilon]
        assert 0.005 < sum(float(binom.pmf(v, m, q)) for v in too_high) <= 0.05


def test_the_f_dp_bound_of_a_gaussian_is_below_the_truth_as_often_as_it_says_and_the_tightest() -> None:
    # m independent Gaussian releases; the adversary guesses the r units of which it is surest.
    mu, m, r, delta, draws = 1.0, 400, 100, 1e-5, np.random.default_rng(5)
    truth = 4.377  # gaussian_epsilon(1.0, 1e-5), checked below
    assert gaussian_mu(truth, delta) == pytest.approx(mu, abs=1e-3)
    bounds = []
    for _ in range(60):
        coins = draws.random(m) < 0.5
        noisy = draws.normal(size=m) + mu * coins - mu / 2
        surest = np.argsort(-np.abs(noisy))[:r]
        v = int(((noisy > 0) == coins)[surest].sum())
        bounds.append(
            (fdp_one_run_epsilon(m, r, v, delta, curve="Gaussian"), one_run_epsilon(m, r, v, delta))
        )
    assert sum(tight > truth for tight, _ in bounds) <= 8
    assert np.mean([tight for tight, _ in bounds]) > 1.5 * np.mean([plain for _, plain in bounds])


def test_a_two_sided_bound_is_above_the_truth_in_five_per_cent_at_most() -> None:
    # Hits in world "in" with 0.4, in world "out" with 0.1: the largest log ratio is ln 4.
    n, truth = 80, math.log(4)
    missed = sum(
        float(binom.pmf(hits, n, 0.4) * binom.pmf(false, n, 0.1))
        for hits in range(n + 1)
        for false in range(n + 1)
        if binom.pmf(hits, n, 0.4) * binom.pmf(false, n, 0.1) > 1e-12
        and two_sided_epsilon(hits, n, false, n) > truth
    )
    assert missed <= 0.05


def test_the_power_table() -> None:
    table = power_table(1e-5)
    assert [(row.m, round(row.one_run, 1), round(row.two_sided, 1)) for row in table] == [
        (100, 3.5, 2.6),
        (500, 5.1, 4.2),
        (1000, 5.8, 4.9),
        (5000, 7.3, 6.5),
    ]


def test_counts_that_cannot_be_are_a_mistake_of_the_caller() -> None:
    for m, r, v in ((10, 20, 5), (10, 5, 6), (10, 0, 0)):
        with pytest.raises(ValueError, match="cannot be"):
            one_run_epsilon(m, r, v)
