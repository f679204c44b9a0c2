"""Known answers, invariances and intervals of the metrics on embeddings.

Published implementations were run once on `published_pair` below: prdc 0.2 (`compute_prdc` with nearest_k 3
and 5), geomloss 0.3.1 (`SamplesLoss("sinkhorn", p=2, blur=eps ** 0.5, scaling=0.999)`) and mauve-text 0.4.0
(`compute_mauve`, whose result holds both histograms). None of them is needed here.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from rpsg.errors import DataError, NotComputable
from rpsg.evaluate import manifold, quantised, transport
from rpsg.evaluate.fidelity import classifier_auc, fidelity_metrics, frechet_distance
from rpsg.scores import Comparison, Metric, TextSample
from rpsg.types import FloatArray

Cloud = Callable[..., FloatArray]
Pair = tuple[FloatArray, FloatArray]


def published_pair() -> Pair:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(300, 16)) + 1.0
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    other = rng.normal(size=(300, 16)) + 0.7
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return one, other  # type: ignore[return-value]


# --- agreement with published implementations -----------------------------------------------------


def test_neighbourhoods_agree_with_prdc_to_all_digits() -> None:
    three, five = (manifold.neighbourhoods(*published_pair(), k=k, k_coverage=k) for k in (3, 5))
    assert dataclasses.astuple(three) == pytest.approx(
        (0.6066666666666667, 0.9633333333333334, 0.5088888888888888, 0.6666666666666666), abs=1e-12
    )
    assert dataclasses.astuple(five) == pytest.approx(
        (0.69, 0.9833333333333333, 0.5093333333333334, 0.8266666666666667), abs=1e-12
    )


@pytest.mark.parametrize(
    ("regularisation", "published"), [(0.05, 0.14561526323204046), (0.02, 0.21419257984732723)]
)
def test_sinkhorn_agrees_with_geomloss_to_five_digits(regularisation: float, published: float) -> None:
    found = transport.sinkhorn_divergence(*published_pair(), regularisation=regularisation)
    assert found == pytest.approx(published, rel=1e-5)


@pytest.mark.parametrize(
    ("p", "q", "published"),
    [
        ([32, 14, 17, 33, 17, 10, 16, 32, 10, 19], [5, 37, 1, 1, 24, 30, 31, 1, 54, 16], 0.2844272634519887),
        ([27, 13, 26, 27, 23, 23, 43, 26, 24, 32, 15, 21], [23, 18, 25, 27, 25, 23, 26, 27, 25, 26, 26, 29],
         0.9952962025964096),
    ],
)  # fmt: skip
def test_the_frontier_agrees_with_mauve_text_to_twelve_digits(
    p: list[int], q: list[int], published: float
) -> None:
    shares = [np.array(counts) / sum(counts) for counts in (p, q)]
    assert quantised.mauve(shares[0], shares[1]) == pytest.approx(published, abs=1e-12)


def test_mauve_as_a_whole_agrees_with_mauve_text_over_seeds() -> None:
    """Ten seeds of mauve-text on the same vectors gave a mean of 0.943 with a deviation of 0.028."""
    values = [
        quantised.mauve(*quantised.quantise(*published_pair(), rng=np.random.default_rng(seed)))
        for seed in range(10)
    ]
    assert np.mean(values) == pytest.approx(0.943, abs=0.03)


# --- known answers --------------------------------------------------------------------------------


def test_frechet_distance_of_gaussians_has_a_closed_form() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(200_000, 3)) * [1.0, 2.0, 0.5] + [1.0, 0.0, 0.0]
    other = rng.normal(size=(200_000, 3)) * [2.0, 2.0, 1.5]
    # |m1 - m2|^2 plus the squared differences of the deviations.
    assert frechet_distance(one, other) == pytest.approx(1.0 + 1.0 + 0.0 + 1.0, abs=0.03)


def test_wasserstein_of_a_shift_is_its_length(cloud: Cloud) -> None:
    points = cloud(200, seed=1).astype(np.float64)
    shift = np.full(16, 0.01)
    assert transport.wasserstein(points, points + shift) == pytest.approx(0.04, abs=1e-9)
    assert transport.wasserstein(points, points[::-1]) == pytest.approx(0.0, abs=1e-6)


def test_sinkhorn_of_two_points_tends_to_half_the_squared_distance() -> None:
    left, right = np.array([[0.0, 0.0]]), np.array([[0.6, 0.8]])
    assert transport.sinkhorn_divergence(left, right) == pytest.approx(0.5, abs=1e-9)
    with pytest.raises(NotComputable, match="unit length"):
        transport.sinkhorn_divergence(left, 100 * right)


def test_mmd_of_gaussians_has_a_closed_form() -> None:
    ratios = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        one, other = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 1)) + 1.0
        s2 = transport.bandwidth_of(one)
        # E exp(-(x - y)^2 / s2) for x - y normal with variance 2 and mean m.
        same, apart = (math.sqrt(s2 / (s2 + 4)) * math.exp(-(m**2) / (s2 + 4)) for m in (0.0, 1.0))
        ratios.append(transport.squared_mmd(one, other) / (2 * (same - apart)))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.06)


def test_mmd_is_unbiased_and_in_blocks(cloud: Cloud) -> None:
    values = [transport.squared_mmd(cloud(50, seed=2 * i), cloud(50, seed=2 * i + 1)) for i in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(200)
    assert min(values) < 0 < max(values)
    one, other = cloud(1500, seed=0), cloud(1500, seed=1, shift=1.0)
    s2 = transport.bandwidth_of(one)

    def kernel(x: FloatArray, y: FloatArray) -> FloatArray:
        return np.exp(-((x[:, None, :].astype("f8") - y[None]) ** 2).sum(-1) / s2)

    own = [(kernel(part, part).sum() - 1500) / (1500 * 1499) for part in (one, other)]
    whole = sum(own) - 2 * kernel(one, other).mean()
    assert transport.squared_mmd(one, other) == pytest.approx(float(whole), abs=1e-6)


def test_histograms_have_known_distances() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert quantised.total_variation(p, q) == pytest.approx(0.5)
    assert quantised.kl_divergence(p, q, n=10**9) == pytest.approx(math.log(2), abs=1e-6)
    assert math.isfinite(quantised.kl_divergence(q, p, n=100))
    assert quantised.mauve(p, p) == pytest.approx(1.0)
    assert quantised.mauve(np.array([1.0, 0.0]), np.array([0.0, 1.0])) < 0.02


def test_k_means_finds_separate_clusters() -> None:
    rng = np.random.default_rng(3)
    centres = np.eye(5) * 10
    points = np.repeat(centres, 40, axis=0) + rng.normal(size=(200, 5)) * 0.1
    found = quantised.k_means(points, 5, rng=rng)
    assert [len(set(found[i : i + 40])) for i in range(0, 200, 40)] == [1] * 5
    assert len(set(found)) == 5


def test_the_classifier_sees_a_shift_and_no_difference(cloud: Cloud) -> None:
    rng = np.random.default_rng(4)
    assert classifier_auc(cloud(400, seed=1), cloud(400, seed=2), rng=rng) == pytest.approx(0.5, abs=0.06)
    assert classifier_auc(cloud(400, seed=1), cloud(400, seed=2, shift=8.0), rng=rng) > 0.99


# --- identical, disjoint, rotated, reordered ------------------------------------------------------


def figures_of(real: FloatArray, other: FloatArray) -> dict[str, float]:
    rng = np.random.default_rng(0)
    p, q = quantised.quantise(real, other, rng=rng)
    near = manifold.neighbourhoods(real, other)
    return {
        "frechet": frechet_distance(real, other), "precision": near.precision, "recall": near.recall,
        "density": near.density, "coverage": near.coverage, "mauve": quantised.mauve(p, q),
        "kl": quantised.kl_divergence(p, q, n=len(real)), "tv": quantised.total_variation(p, q),
        "wasserstein": transport.wasserstein(real, other),
        "sinkhorn": transport.sinkhorn_divergence(real, other), "mmd": transport.squared_mmd(real, other),
    }  # fmt: skip


def test_identical_and_disjoint_sets(cloud: Cloud) -> None:
    points = cloud(300, seed=1)
    same = figures_of(points, points.copy())
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0 == pytest.approx(same["mauve"])
    for name in ("frechet", "kl", "tv", "wasserstein", "sinkhorn", "mmd"):
        assert abs(same[name]) < 5e-3, name
    apart = figures_of(points, -points)
    assert apart["precision"] == apart["recall"] == apart["density"] == apart["coverage"] == 0.0
    assert apart["tv"] == 1.0 and apart["mauve"] < 0.02 and apart["kl"] > 1.0
    assert apart["frechet"] > 1.0 and apart["wasserstein"] > 1.0 and apart["mmd"] > 0.5


def test_rotation_and_order_do_not_matter(cloud: Cloud) -> None:
    one, other = cloud(200, seed=1), cloud(200, seed=2, shift=1.0)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    before, after = figures_of(one, other), figures_of(one @ turn, other[::-1] @ turn)
    # k-means starts from rows, so only the histograms may move.
    for name in set(before) - {"mauve", "kl", "tv"}:
        assert after[name] == pytest.approx(before[name], rel=1e-3, abs=1e-5), name


def test_one_repeated_text_is_never_precise(cloud: Cloud) -> None:
    points = cloud(100, seed=1)
    found = manifold.neighbourhoods(points, np.repeat(points[:1], 100, axis=0))
    assert math.isnan(found.precision) and math.isnan(found.density)
    assert found.recall == 0.0 and found.coverage < 0.2
    with pytest.raises(NotComputable):
        quantised.quantise(points[:1].repeat(50, 0), points[:1].repeat(50, 0), rng=np.random.default_rng(0))


# --- equal sizes and intervals --------------------------------------------------------------------


def compare(real: FloatArray, other: FloatArray, holdout: FloatArray, *, seed: int = 0) -> Comparison:
    samples = [TextSample(texts=("",) * len(part), vectors=part) for part in (real, holdout, other)]
    return Comparison(
        real=samples[0], holdout=samples[1], synthetic=samples[2], baseline=samples[1], seed=seed, repeats=6
    )


def metric(name: str) -> Metric:
    return next(item for item in fidelity_metrics() if item.name == name)


def test_a_larger_set_gets_the_same_figure_at_equal_n(cloud: Cloud) -> None:
    """Unequal sizes would make the smaller set look worse: the distance of samples falls with n."""
    assert frechet_distance(cloud(50, seed=1), cloud(50, seed=2)) > 2 * frechet_distance(
        cloud(400, seed=1), cloud(400, seed=2)
    )
    small = metric("frechet").score(compare(cloud(60, seed=1), cloud(60, seed=2), cloud(60, seed=3)))[0]
    large = metric("frechet").score(compare(cloud(600, seed=1), cloud(600, seed=2), cloud(60, seed=3)))[0]
    assert small.n == large.n == 30
    assert large.value == pytest.approx(small.value, rel=0.15)
    assert small.value == pytest.approx(small.reference, rel=0.15)


@pytest.mark.parametrize("name", [item.name for item in fidelity_metrics()])
def test_every_metric_is_fixed_by_its_seed_and_ordered(name: str, cloud: Cloud) -> None:
    comparison = compare(cloud(80, seed=1), cloud(80, seed=2, shift=8.0), cloud(80, seed=3))
    scores = metric(name).score(comparison)
    assert scores == metric(name).score(comparison)
    assert scores != metric(name).score(dataclasses.replace(comparison, seed=1))
    for score in scores:
        assert score.value is not None and score.reference is not None and score.low is not None
        assert score.low <= score.value <= (score.high or 0.0)
        # Of the AUC 0.5 is best; a shift moves it upwards.
        worse = score.value < score.reference if score.better == "higher" else score.value > score.reference
        assert worse, score.name


def test_intervals_cover(cloud: Cloud) -> None:
    """The 95 % interval holds the expected figure in most of 60 experiments."""
    sizes = {"n": 40, "d": 4}
    truth = float(np.mean([
        frechet_distance(cloud(20, seed=i, d=4), cloud(20, seed=i + 5000, d=4, shift=1.5)) for i in range(999)
    ]))  # fmt: skip
    hits = 0
    for i in range(60):
        ours, other = cloud(**sizes, seed=10_000 + i), cloud(**sizes, seed=20_000 + i, shift=1.5)
        score = metric("frechet").score(compare(ours, other, ours))[0]
        hits += (score.low or 0.0) <= truth <= (score.high or 0.0)
    assert hits >= 51


def test_a_metric_without_vectors_says_so_and_few_rows_are_refused(cloud: Cloud) -> None:
    comparison = compare(cloud(40, seed=1), cloud(40, seed=2), cloud(40, seed=3))
    blind = dataclasses.replace(comparison, synthetic=TextSample(texts=("",) * 40))
    scores = metric("manifold").score(blind)
    assert {score.reason for score in scores} == {"the texts were not embedded"}
    assert all(score.value is None for score in scores)
    few = compare(cloud(40, seed=1), cloud(19, seed=2), cloud(40, seed=3))
    with pytest.raises(DataError, match="synthetic data set has 19"):
        metric("frechet").score(few)


def test_a_sample_shows_no_text() -> None:
    assert repr(TextSample(texts=("a private text",))) == "TextSample(<1 texts>)"
