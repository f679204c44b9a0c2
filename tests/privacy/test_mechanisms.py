import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from rpsg.errors import PrivacyError
from rpsg.privacy.accounting import gaussian_delta, gaussian_epsilon
from rpsg.privacy.choice import permute_and_flip_probabilities
from rpsg.privacy.mechanisms import (
    GRID_STEPS,
    MIN_NOISE_STEPS,
    GaussianSum,
    NoisyMax,
    PrivateQuantile,
    PrivateRows,
    ThresholdedKeys,
)
from rpsg.privacy.noise import FixedNoise, SecureNoise

N_ITEMS = 7


def random_votes(rng: np.random.Generator, n_units: int) -> PrivateRows:
    n = int(rng.integers(0, 25))
    return PrivateRows(
        units=rng.integers(0, n_units, n),
        items=rng.integers(-1, N_ITEMS + 1, n),
        weights=rng.choice([1.0, 0.3, -2.0, 1e9, -1e9, np.nan, np.inf, 1e-12], n),
    )


def without(votes: PrivateRows, unit: int) -> PrivateRows:
    kept = votes.units != unit
    return PrivateRows(units=votes.units[kept], items=votes.items[kept], weights=votes.weights[kept])


def test_one_unit_cannot_move_the_counts_by_more_than_one() -> None:
    rng = np.random.default_rng(0)
    mechanism = GaussianSum(noise_multiplier=1.0, n_items=N_ITEMS)
    largest = 0.0
    for _ in range(10_000):
        votes = random_votes(rng, n_units=4)
        moved = mechanism.clipped_sum(votes) - mechanism.clipped_sum(without(votes, 0))
        largest = max(largest, float(np.linalg.norm(moved)) / GRID_STEPS)
    assert 0.99 < largest <= 1.0


@pytest.mark.parametrize("source", [SecureNoise(), FixedNoise(3)], ids=["secure", "fixed"])
def test_noise_has_the_scale_that_is_accounted_for(source: SecureNoise | FixedNoise) -> None:
    mechanism = GaussianSum(noise_multiplier=2.0, n_items=20_000)
    nothing = PrivateRows(units=np.empty(0, np.int64), items=np.empty(0, np.int64), weights=np.empty(0))
    drawn = np.asarray(mechanism.sample(nothing, source))
    assert stats.kstest(drawn, "norm", args=(0, 2.0)).pvalue > 1e-4
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(drawn, "norm", args=(0, 2.0 * wrong)).pvalue < 1e-12


def test_secure_noise_cannot_be_repeated() -> None:
    def draw_all() -> tuple[list[object], ...]:
        # Whatever a caller seeds must not matter.
        random.seed(0)
        np.random.seed(0)
        source = SecureNoise()
        counts = [int(value) for value in source.gaussian(np.zeros(20, np.int64), 1000.0)]
        choices = [source.noisy_max([0.5] * 10, 1.0) for _ in range(40)]
        return counts, choices, source.shuffle(40), [source.token()]

    for one, two in zip(draw_all(), draw_all(), strict=True):
        assert one != two


def test_released_counts_cannot_tell_neighbours_apart_better_than_accounted() -> None:
    # The best test on one count for a unit's vote: its power must stay below the accounted bound.
    mechanism = GaussianSum(noise_multiplier=1.0, n_items=1)
    vote = PrivateRows(units=np.zeros(1, np.int64), items=np.zeros(1, np.int64), weights=np.ones(1))
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


def test_replacing_a_record_changes_its_choice_by_no_more_than_epsilon() -> None:
    # The exact law at what the mechanism hands to its source, for 10^4 pairs of arbitrary records.
    class Law(FixedNoise):
        def noisy_max(self, utilities: Sequence[float], scale: float) -> int:
            laws.append(permute_and_flip_probabilities(utilities, 2 / scale))
            return 0

    rng = np.random.default_rng(6)
    epsilon, worst = 1.5, 0.0
    mechanism = NoisyMax(epsilon=epsilon, n_candidates=3)
    for _ in range(10_000):
        laws: list[list[float]] = []
        for _ in range(2):
            values = rng.choice([0.0, 1.0, 5.0, -3.0, math.nan, math.inf, rng.random()], 3)
            mechanism.sample({"r": values.tolist()}, Law(0))
        worst = max(worst, *(math.log(p / q) for p, q in zip(*laws, strict=True)))
    assert 0.7 * epsilon < worst <= epsilon + 1e-9


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
    votes = PrivateRows(units=np.zeros(1, np.int64), items=np.zeros(1, np.int64), weights=np.ones(1))
    with pytest.raises(PrivacyError):
        GaussianSum(noise_multiplier=bad, n_items=1).sample(votes, SecureNoise())
    with pytest.raises(PrivacyError):
        NoisyMax(epsilon=bad, n_candidates=2).sample({"r": [0.1]}, SecureNoise())


def test_votes_do_not_print_themselves() -> None:
    votes = PrivateRows(units=np.asarray([424242]), items=np.asarray([1]), weights=np.ones(1))
    assert "424242" not in repr(votes) + str(votes)


# --- the discrete Gaussian -----------------------------------------------------------------------


@pytest.mark.parametrize("change", [(256,), (181, 181), (100, 200, 124)], ids=["one item", "two", "three"])
def test_the_closed_form_holds_for_whole_steps(change: tuple[int, ...]) -> None:
    # A unit spread over items, with noise of 256 steps, the least allowed: the discrete mechanism's own
    # loss distribution against the continuous formula.
    from dp_accounting.pld import privacy_loss_distribution as pld

    sigma = float(MIN_NOISE_STEPS)
    total = None
    for part in change:
        one = pld.from_discrete_gaussian_mechanism(sigma, sensitivity=part)
        total = one if total is None else total.compose(one)
    assert total is not None
    norm = math.sqrt(sum(part**2 for part in change))
    ours = gaussian_epsilon(norm / sigma, 1e-6)
    # Theirs is rounded up to its own interval of 1e-4.
    assert total.get_epsilon_for_delta(1e-6) == pytest.approx(ours, abs=1e-3)


def test_less_noise_than_the_formula_holds_for_is_refused() -> None:
    GaussianSum(noise_multiplier=0.25, n_items=1)
    with pytest.raises(PrivacyError, match="ask for a smaller epsilon"):
        GaussianSum(noise_multiplier=0.249, n_items=1)


def test_one_unit_is_within_its_norm_exactly() -> None:
    rng = np.random.default_rng(1)
    mechanism = GaussianSum(noise_multiplier=1.0, n_items=40)
    for _ in range(2000):
        n = int(rng.integers(1, 40))
        weights = rng.choice([1.0, 3.0, 1 / 3, 1e6, 1e-3], n) * rng.choice([1.0, rng.random()], n)
        rows = PrivateRows(units=np.zeros(n, np.int64), items=rng.permutation(40)[:n], weights=weights)
        steps = [int(value) for value in mechanism.clipped_sum(rows)]
        assert sum(value * value for value in steps) <= GRID_STEPS**2


def test_replacing_a_unit_moves_the_sums_by_at_most_root_two() -> None:
    rng = np.random.default_rng(2)
    mechanism = GaussianSum(noise_multiplier=1.0, n_items=N_ITEMS)
    (event,) = mechanism.events
    largest = 0.0
    for _ in range(10_000):
        one, two = random_votes(rng, n_units=1), random_votes(rng, n_units=1)
        moved = mechanism.clipped_sum(one) - mechanism.clipped_sum(two)
        largest = max(largest, float(np.linalg.norm(moved)) / GRID_STEPS)
    assert event.replace_l2 is not None
    assert 1.3 < largest <= event.replace_l2


# --- unknown keys --------------------------------------------------------------------------------

KEYS = ThresholdedKeys(noise_multiplier=2.0, max_keys=3, delta=1e-6)


def test_the_threshold_is_the_published_one() -> None:
    expected = max(1 / math.sqrt(t) + 2.0 * stats.norm.ppf((1 - 1e-6) ** (1 / t)) for t in (1, 2, 3))
    assert expected <= KEYS.threshold <= expected + 2 / GRID_STEPS


def test_what_many_hold_is_named_and_what_one_holds_is_not() -> None:
    units = {f"u{i}": ["rent"] if i < 60 else ["rent", "bail", f"only {i}"] for i in range(100)}
    drawn = KEYS.sample(units, SecureNoise())
    assert isinstance(drawn, dict)
    assert set(drawn) == {"rent", "bail"} and list(drawn) == sorted(drawn)
    assert drawn["rent"] == pytest.approx(60 + 40 / math.sqrt(3), abs=12)


@pytest.mark.parametrize("t", [1, 2, 3])
def test_a_key_of_one_unit_is_named_no_more_often_than_delta_says(t: int) -> None:
    loose = ThresholdedKeys(noise_multiplier=2.0, max_keys=3, delta=0.05)
    n = 4000
    noise = SecureNoise()
    # n independent worlds, each with one unit and its own keys, drawn together: keys are independent.
    weight = math.trunc(GRID_STEPS / math.sqrt(t))
    drawn = noise.gaussian(np.full(n * t, weight, dtype=np.int64), 2.0 * GRID_STEPS) / GRID_STEPS
    named = (drawn.reshape(n, t) > loose.threshold).any(axis=1).mean()
    assert named <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / n)
    if t == 3:
        assert named > 0.03


def test_a_unit_holds_at_most_max_keys_and_moves_the_sums_by_one() -> None:
    rng = np.random.default_rng(3)

    class Exact(FixedNoise):
        def gaussian(self, values: np.ndarray, std: float) -> np.ndarray:
            del std
            return values + 10**9

    names = [f"k{i}" for i in range(8)]
    for _ in range(10_000):
        base = {f"u{i}": rng.choice(names, int(rng.integers(0, 6))).tolist() for i in range(4)}
        more = {**base, "new": rng.choice(names, int(rng.integers(1, 8))).tolist()}
        one, two = (KEYS.sample(units, Exact(0)) for units in (base, more))
        assert isinstance(one, dict) and isinstance(two, dict)
        shift = 10**9 / GRID_STEPS
        moved = [two[key] - one.get(key, shift) for key in two]
        assert math.sqrt(sum(value**2 for value in moved)) <= 1 + 1e-6
        assert sum(value > 1e-6 for value in moved) <= 3


@pytest.mark.parametrize("bad", [{"max_keys": 0}, {"delta": 0.0}, {"delta": 0.6}, {"noise_multiplier": 0.1}])
def test_thresholds_that_cannot_hold_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(PrivacyError):
        ThresholdedKeys(**{"noise_multiplier": 2.0, "max_keys": 3, "delta": 1e-6, **bad})


# --- quantiles -----------------------------------------------------------------------------------


def test_one_unit_moves_a_quantile_score_by_no_more_than_accounted() -> None:
    rng = np.random.default_rng(4)
    largest = dict.fromkeys((0.5, 0.9), 0)
    for quantile in (0.5, 0.9):
        mechanism = PrivateQuantile(quantile=quantile, epsilon=1.0, candidates=(0.0, 1.0, 2.0, 5.0, 9.0))
        for _ in range(5000):
            units = {f"u{i}": rng.integers(-2, 12, int(rng.integers(0, 4))).tolist() for i in range(6)}
            more = {**units, "new": [float(rng.integers(-2, 12)), math.nan][: int(rng.integers(1, 3))]}
            pairs = zip(mechanism.scores(units), mechanism.scores(more), strict=True)
            largest[quantile] = max(largest[quantile], *(abs(a - b) for a, b in pairs))
    assert largest == {0.5: 500, 0.9: 900}


def test_a_quantile_is_near_the_true_one() -> None:
    mechanism = PrivateQuantile(
        quantile=0.9, epsilon=2.0, candidates=tuple(float(v) for v in range(0, 101, 5))
    )
    units = {str(i): [float(i % 100)] for i in range(2000)}
    drawn = [mechanism.sample(units, SecureNoise()) for _ in range(20)]
    assert all(85 <= float(str(value)) <= 95 for value in drawn)


def test_quantiles_of_nothing_are_refused() -> None:
    for bad in ({"quantile": 1.2}, {"candidates": ()}, {"candidates": (2.0, 1.0)}, {"epsilon": 0.0}):
        with pytest.raises(PrivacyError):
            PrivateQuantile(**{"quantile": 0.5, "epsilon": 1.0, "candidates": (1.0, 2.0), **bad})
