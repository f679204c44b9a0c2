"""Rates, AUC, p-values: golden values, known laws, and how often intervals hold."""

import math

import numpy as np
import pytest
from scipy.stats import binom, mannwhitneyu
from sklearn.metrics import roc_auc_score

from rpsg.audit.estimators import auc, auc_interval, clopper_pearson, holm, permutation_p, tpr_at_fpr


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_clopper_pearson_ends_are_where_the_binomial_tail_is_half_the_rest() -> None:
    low, high = clopper_pearson(7, 20)
    assert binom.sf(6, 20, low) == pytest.approx(0.025)
    assert binom.cdf(7, 20, high) == pytest.approx(0.025)
    assert clopper_pearson(0, 20)[0] == 0.0
    assert clopper_pearson(20, 20)[1] == 1.0
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no rate"):
        clopper_pearson(3, 2)


def test_auc_is_the_area_under_the_roc_curve_with_ties_halved() -> None:
    members, nonmembers = rng().integers(0, 5, 40), rng(1).integers(0, 4, 60)
    expected = roc_auc_score([1] * 40 + [0] * 60, [*members, *nonmembers])
    assert auc(members, nonmembers) == pytest.approx(expected)
    assert auc([1.0], [1.0]) == 0.5
    with pytest.raises(ValueError, match="NaN"):
        auc([math.nan], [1.0])
    with pytest.raises(ValueError, match="at least one"):
        auc([], [1.0])


@pytest.mark.parametrize(("n", "half_width"), [(100, 0.08), (500, 0.036), (1000, 0.025)])
def test_the_auc_interval_at_chance_is_as_wide_as_the_specification_says(n: int, half_width: float) -> None:
    low, high = auc_interval(rng().normal(size=n), rng(1).normal(size=n))
    assert (high - low) / 2 == pytest.approx(half_width, abs=0.002)


def test_a_perfect_attack_still_has_an_interval() -> None:
    assert auc_interval(np.ones(50), np.zeros(50)) == (pytest.approx(0.9603, abs=1e-3), 1.0)
    assert auc_interval(np.zeros(50), np.ones(50)) == (0.0, pytest.approx(0.0397, abs=1e-3))


@pytest.mark.parametrize("leaking", [0.0, 0.1, 0.9])
def test_the_auc_interval_covers_the_truth(leaking: float) -> None:
    # A leak of some members is a two-humped law, for which a normal-shift variance would be too small.
    draws, truth = rng(7), leaking + (1 - leaking) / 2
    covered = 0
    for _ in range(300):
        members = np.where(draws.random(60) < leaking, 9.0, draws.normal(size=60))
        low, high = auc_interval(members, draws.normal(size=60))
        covered += low <= truth <= high
    # 95 % of 300 is 285, standard deviation 3.8.
    assert covered >= 274


def test_the_permutation_test_agrees_with_the_exact_mann_whitney_law() -> None:
    members, nonmembers = rng(3).normal(0.6, 1, 12), rng(4).normal(0, 1, 15)
    exact = mannwhitneyu(members, nonmembers, alternative="greater", method="exact").pvalue
    assert permutation_p(members, nonmembers, rng=rng(), n=40_000) == pytest.approx(exact, abs=0.002)


def test_few_labellings_are_all_tried_and_ties_count_against_the_finding() -> None:
    assert permutation_p([3, 4], [1, 2], rng=rng()) == pytest.approx(1 / 6)
    assert permutation_p([1, 1, 1], [1, 1, 1], rng=rng()) == 1.0
    assert permutation_p([2, 1], [1, 1], rng=rng()) == pytest.approx(0.5)


def test_no_permutation_p_is_zero_and_it_repeats() -> None:
    members, nonmembers = np.ones(100), np.zeros(100)
    assert permutation_p(members, nonmembers, rng=rng(), n=999) == 1 / 1000
    noise = rng(1).normal(size=(2, 500))
    assert permutation_p(*noise, rng=rng(5)) == permutation_p(*noise, rng=rng(5))


def test_p_values_under_the_null_are_not_too_small_with_ties() -> None:
    draws = rng(11)
    values = [
        permutation_p(draws.integers(0, 3, 40), draws.integers(0, 3, 40), rng=draws, n=199)
        for _ in range(400)
    ]
    # At most 5 % of 400 is 20, standard deviation 4.4.
    assert 5 <= sum(value <= 0.05 for value in values) <= 33


def test_holm_keeps_the_order_and_multiplies_by_what_is_left() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.5, 0.9]) == pytest.approx((1.0, 1.0))
    assert holm([]) == ()


def test_the_threshold_lets_no_more_non_members_through_than_asked() -> None:
    draws = rng(2)
    passed = []
    for _ in range(2000):
        nonmembers = draws.normal(size=199)
        # A fresh non-member stands in for a member: its rate is the threshold's false positive rate.
        passed.append(tpr_at_fpr(draws.normal(size=20), nonmembers, 0.02).hits)
    # 2 % of 40 000 is 800; hits of one threshold hang together, so the standard deviation is about 68.
    assert 560 <= sum(passed) <= 940


def test_ties_with_the_threshold_are_no_hits() -> None:
    rate = tpr_at_fpr([1.0] * 10, [1.0] * 99, 0.01)
    assert (rate.value, rate.hits, rate.n) == (0.0, 0, 10)
    assert tpr_at_fpr([2.0] * 10, [1.0] * 99, 0.01).value == 1.0


def test_a_rate_with_its_interval() -> None:
    rate = tpr_at_fpr([*np.full(30, 5.0), *np.full(70, -5.0)], np.arange(1000) / 1000, 0.01)
    assert (rate.value, rate.fpr) == (0.3, 10 / 1001)
    assert (rate.low, rate.high) == clopper_pearson(30, 100)
    assert rate.fpr_high == clopper_pearson(9, 1000)[1]


def test_too_few_non_members_give_no_rate() -> None:
    rate = tpr_at_fpr([2.0] * 500, [1.0] * 500, 0.001)
    assert (rate.value, rate.low, rate.high) == (None, 0.0, 1.0)
    assert rate.fpr == 1 / 501
    assert tpr_at_fpr([2.0] * 500, [1.0] * 999, 0.001).value == 1.0
    with pytest.raises(ValueError, match="between 0 and 1"):
        tpr_at_fpr([1.0], [1.0], 0.0)
