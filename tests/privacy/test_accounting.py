import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpsg.errors import PrivacyError
from rpsg.privacy.accounting import (
    PlannedRelease,
    accuracy_bound,
    calibrate,
    calibrate_gaussian,
    compose,
    gaussian_accuracy,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    gaussian_true_positive,
    round_up,
    show,
    true_positive_bound,
    zcdp_epsilon,
    zcdp_rho,
)
from rpsg.privacy.choice import (
    gaussian_argmax_epsilon,
    permute_and_flip_best,
    permute_and_flip_probabilities,
)
from rpsg.privacy.events import (
    ADD_REMOVE,
    REPLACE,
    BoundedRangeEvent,
    DeltaEvent,
    GaussianEvent,
    NonPrivateEvent,
    PureEvent,
    SampledGaussianEvent,
    ZcdpEvent,
)

# AUG-PE (arXiv 2403.01749), 10 epochs, delta = 1 / (N ln N): the published noise, found there by search.
AUG_PE = [
    (75_316, 1, 13.26), (75_316, 2, 7.01), (75_316, 4, 3.75),
    (8_396, 1, 11.60), (8_396, 2, 6.22), (8_396, 4, 3.38),
    (1_939_290, 1, 15.34), (1_939_290, 2, 8.03), (1_939_290, 4, 4.24),
]  # fmt: skip


@pytest.mark.parametrize(("n", "epsilon", "sigma"), AUG_PE)
def test_noise_of_ten_releases_is_the_published_one(n: int, epsilon: float, sigma: float) -> None:
    delta = 1 / (n * math.log(n))
    assert calibrate_gaussian(epsilon, delta, n_releases=10) == pytest.approx(sigma, rel=0.005)


@given(st.floats(0.05, 20), st.floats(1e-12, 0.1))
@settings(deadline=None, max_examples=200)
def test_epsilon_to_noise_and_back(epsilon: float, delta: float) -> None:
    assert gaussian_epsilon(gaussian_mu(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-6, abs=1e-8)


def test_published_noise_gives_the_published_epsilon() -> None:
    # The published sigmas have three digits: epsilon agrees to 0.005 for a sigma within its rounding.
    for n, epsilon, sigma in AUG_PE:
        delta = 1 / (n * math.log(n))
        low, high = (gaussian_epsilon(math.sqrt(10) / s, delta) for s in (sigma + 0.005, sigma - 0.005))
        assert low - 0.005 <= epsilon <= high + 0.005


@pytest.mark.parametrize(
    ("noise", "n_releases", "interval"), [(1.194, 1, 1e-4), (4.22, 1, 2e-5), (4.22, 3, 5e-5)]
)
def test_closed_form_equals_the_numerical_accountant(noise: float, n_releases: int, interval: float) -> None:
    from dp_accounting.pld import privacy_loss_distribution as pld

    events = [GaussianEvent(sensitivity_l2=1, std=noise, relation=ADD_REMOVE)] * n_releases
    ours = compose(events, 1e-6)
    assert ours.accountant == "exact Gaussian"
    bounds = []
    for pessimistic in (False, True):
        one = pld.from_gaussian_mechanism(
            noise, pessimistic_estimate=pessimistic, value_discretization_interval=interval
        )
        bounds.append(one.self_compose(n_releases).get_epsilon_for_delta(1e-6))
    # To five digits, and on the right side of both.
    assert bounds[0] - 1e-9 <= ours.epsilon <= bounds[1] + 1e-9
    assert bounds[1] - bounds[0] < n_releases * interval


ZCDP_TABLE = {
    1e-5: {1: 0.03056, 2: 0.10826, 4: 0.37314, 8: 1.22971, 10: 1.78270},
    1e-6: {1: 0.02436, 2: 0.08815, 4: 0.31106, 8: 1.05236, 10: 1.53928},
}


@pytest.mark.parametrize("delta", list(ZCDP_TABLE))
def test_zcdp_conversion_is_the_optimal_one(delta: float) -> None:
    for epsilon, rho in ZCDP_TABLE[delta].items():
        assert zcdp_rho(epsilon, delta) == pytest.approx(rho, abs=6e-6)
        assert zcdp_epsilon(zcdp_rho(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-9)


@given(st.floats(1e-6, 50), st.floats(1e-12, 0.05))
@settings(deadline=None, max_examples=200)
def test_zcdp_conversion_is_never_below_the_exact_gaussian(rho: float, delta: float) -> None:
    assert zcdp_epsilon(rho, delta) >= gaussian_epsilon(math.sqrt(2 * rho), delta) - 1e-9


@pytest.mark.parametrize(("epsilon", "clip"), [(1, 0.0829), (3, 0.2285), (5, 0.3615), (10, 0.6591)])
def test_clip_norms_of_invisible_ink(epsilon: float, clip: float) -> None:
    # InvisibleInk (arXiv 2507.02974): B = 7 private prompts, temperature 1.2, 500 tokens, delta 1e-6.
    ours = 7 * 1.2 * math.sqrt(2 * zcdp_rho(epsilon, 1e-6) / 500)
    assert ours == pytest.approx(clip, abs=6e-5)


@pytest.mark.parametrize(("nominal", "epsilon"), [(1, 0.485), (2, 0.971), (4, 1.955), (8, 4.017)])
def test_epsilon_of_the_published_selection(nominal: float, epsilon: float) -> None:
    # The classical formula of the published code, at N = 8,948 and delta = 1/(N ln N).
    noise = math.sqrt(2 * math.log(1.25 * 8948 * math.log(8948))) / nominal
    assert gaussian_argmax_epsilon(noise, 5) == pytest.approx(epsilon, abs=6e-4)


def test_delta_decreases_with_epsilon_and_grows_with_mu() -> None:
    grid = [gaussian_delta(1.0, epsilon) for epsilon in np.linspace(0, 10, 50)]
    assert grid == sorted(grid, reverse=True)
    assert gaussian_delta(0.5, 1.0) < gaussian_delta(1.0, 1.0) < gaussian_delta(2.0, 1.0)
    # Total variation of two unit Gaussians one apart.
    assert gaussian_delta(1.0, 0.0) == pytest.approx(0.3829249, abs=1e-6)


GAUSSIAN = GaussianEvent(sensitivity_l2=2, std=4, relation=ADD_REMOVE)
PURE = PureEvent(epsilon=1.5, relation=ADD_REMOVE)


def test_gaussian_and_pure_compositions_are_exact() -> None:
    assert compose([GAUSSIAN] * 4, 1e-6).epsilon == pytest.approx(gaussian_epsilon(1.0, 1e-6))
    assert compose([PURE], 1e-6).epsilon == pytest.approx(1.5, abs=1e-5)
    assert compose([PURE, PURE], 1e-6).epsilon <= 3.0
    assert compose([GAUSSIAN, NonPrivateEvent(reason="texts")], 1e-6).epsilon == math.inf
    assert compose([], 1e-6).epsilon == 0.0


def test_mixed_composition_beats_adding_up_and_is_never_below_a_part() -> None:
    mixed = compose([GAUSSIAN, PURE], 1e-6)
    parts = gaussian_epsilon(0.5, 1e-6), 1.5
    assert max(parts) < mixed.epsilon < sum(parts)
    assert mixed.accountant == "privacy loss distribution"
    with_zcdp = compose([GAUSSIAN, ZcdpEvent(rho=0.1, relation=ADD_REMOVE)], 1e-6)
    assert with_zcdp.epsilon == pytest.approx(zcdp_epsilon(0.125 + 0.1, 1e-6))
    assert with_zcdp.accountant == "zCDP"


def test_bounded_range_is_pure_or_zcdp_whichever_is_less() -> None:
    one = BoundedRangeEvent(eta=0.1, relation=ADD_REMOVE)
    assert compose([one], 1e-6).epsilon == pytest.approx(0.1, abs=1e-3)
    many = compose([one] * 400, 1e-6)
    assert many.epsilon <= zcdp_epsilon(400 * 0.1**2 / 8, 1e-6) + 1e-9 < 40


def test_delta_of_thresholds_is_taken_from_the_whole() -> None:
    threshold = DeltaEvent(delta=4e-7, relation=ADD_REMOVE)
    assert compose([GAUSSIAN, threshold], 1e-6).epsilon == pytest.approx(gaussian_epsilon(0.5, 6e-7))
    assert compose([GAUSSIAN, threshold], 4e-7).epsilon == math.inf


def test_replacing_and_groups() -> None:
    votes = GaussianEvent(sensitivity_l2=1, std=4, relation=ADD_REMOVE, replace_l2=math.sqrt(2))
    assert compose([votes], 1e-6, relation=REPLACE).epsilon == pytest.approx(
        gaussian_epsilon(math.sqrt(2) / 4, 1e-6)
    )
    assert compose([GAUSSIAN], 1e-6, relation=REPLACE).epsilon == pytest.approx(gaussian_epsilon(1.0, 1e-6))
    assert compose([votes], 1e-6, group=3).epsilon == pytest.approx(gaussian_epsilon(3 / 4, 1e-6))
    assert compose([PURE], 1e-6, group=3).epsilon == pytest.approx(4.5)
    assert compose([votes, PURE], 1e-6, relation=REPLACE).epsilon > compose([votes, PURE], 1e-6).epsilon


def test_replacing_a_unit_doubles_what_may_go_wrong() -> None:
    events = [
        GaussianEvent(sensitivity_l2=1, std=4, relation=ADD_REMOVE),
        DeltaEvent(delta=1e-7, relation=ADD_REMOVE),
    ]
    figure = compose(events, 1e-6, relation=REPLACE)
    assert figure.epsilon == pytest.approx(gaussian_epsilon(0.5, 8e-7))


def test_group_privacy_with_a_threshold_is_the_general_bound() -> None:
    small = GaussianEvent(sensitivity_l2=1, std=20, relation=ADD_REMOVE)
    events = [small, DeltaEvent(delta=1e-9, relation=ADD_REMOVE)]
    figure = compose(events, 1e-6, group=2)
    assert figure.accountant == "group privacy"
    # Two units: above the exact Gaussian of two, below infinity.
    assert gaussian_epsilon(2 / 20, 1e-6) < figure.epsilon < 3 * gaussian_epsilon(2 / 20, 1e-6)


def test_sampled_gaussian_agrees_with_the_library() -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    event = SampledGaussianEvent(noise_multiplier=1.1, sampling_rate=0.02, count=200)
    accountant = PLDAccountant()
    accountant.compose(SelfComposedDpEvent(PoissonSampledDpEvent(0.02, GaussianDpEvent(1.1)), 200))
    assert compose([event], 1e-6).epsilon == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-3)
    with pytest.raises(PrivacyError, match="cannot be added up"):
        compose([event, ZcdpEvent(rho=0.1, relation=ADD_REMOVE)], 1e-6)


def test_a_plan_spends_exactly_its_budget_in_its_shares() -> None:
    releases = [
        PlannedRelease(label="topics", share=1),
        PlannedRelease(label="phrases", share=3, delta=1e-7),
        PlannedRelease(label="votes", share=2, count=4),
    ]
    noise = calibrate(4.0, 1e-6, releases)
    events = [
        GaussianEvent(sensitivity_l2=1, std=noise[item.label], relation=ADD_REMOVE)
        for item in releases
        for _ in range(item.count)
    ]
    threshold = DeltaEvent(delta=1e-7, relation=ADD_REMOVE)
    assert compose([*events, threshold], 1e-6).epsilon == pytest.approx(4.0, rel=1e-9)
    assert noise["topics"] ** 2 / noise["phrases"] ** 2 == pytest.approx(3)


def test_plans_that_cannot_be_solved_are_refused() -> None:
    for releases, message in (
        ([], "needs releases"),
        ([PlannedRelease(label="a", share=0)], "positive share"),
        ([PlannedRelease(label="a"), PlannedRelease(label="a")], "one label"),
        ([PlannedRelease(label="a", delta=1e-6)], "raise delta"),
    ):
        with pytest.raises(PrivacyError, match=message):
            calibrate(1.0, 1e-6, releases)


def test_attacker_in_numbers() -> None:
    assert accuracy_bound(0.0) == 0.5
    assert accuracy_bound(math.log(3)) == pytest.approx(0.75)
    assert accuracy_bound(0.0, 0.1) == pytest.approx(0.55)
    assert accuracy_bound(math.inf) == 1.0
    assert gaussian_accuracy(1.0, 0.0) == pytest.approx((1 + gaussian_delta(1.0, 0.0)) / 2)
    assert true_positive_bound(0.0, 0.0, false_positive=0.01) == pytest.approx(0.01)
    assert true_positive_bound(1.0, 1e-6, false_positive=0.01) == pytest.approx(0.01 * math.e + 1e-6)
    assert true_positive_bound(20.0, 1e-6, false_positive=0.01) < 1
    assert true_positive_bound(math.inf, 1e-6, false_positive=0.01) == 1.0
    assert gaussian_true_positive(0.0, 0.0, false_positive=0.01) == pytest.approx(0.01)
    assert gaussian_true_positive(1.532, 0.0, false_positive=0.01) == pytest.approx(0.2136, abs=1e-3)
    assert gaussian_true_positive(0.0, 0.1, false_positive=0.01) == pytest.approx(0.11)


def test_events_under_different_relations_are_not_added() -> None:
    with pytest.raises(PrivacyError, match="give no figure"):
        compose(
            [
                PureEvent(epsilon=1, relation="replace one record"),
                GaussianEvent(sensitivity_l2=1, std=1, relation=ADD_REMOVE),
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
    assert round_up(math.nextafter(4.0, 5.0), 3) == 4.001
    assert round_up(1.1, 3) == 1.1


def test_figures_are_shown_with_all_their_digits() -> None:
    assert [show(value) for value in (4.0, 2.0000049, 1234.564, 1e-6)] == [
        "4",
        "2.0000049",
        "1234.564",
        "1e-06",
    ]
