"""How near a synthetic set is to the real one, on embeddings.

Each metric is computed on equally many rows of every data set, several times: see
`rpsg.evaluate.resampling`. Neighbourhoods are in `manifold`, clusters in `quantised`, transport and kernels
in `transport`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rpsg.errors import NotComputable
from rpsg.evaluate import manifold, quantised, transport
from rpsg.evaluate.resampling import (
    Figure,
    Rows,
    collect,
    draw_halves,
    half_size,
    map_draws,
    not_computable,
)
from rpsg.rng import Streams
from rpsg.scores import Comparison, Metric, Score, TextSample
from rpsg.types import FloatArray

_PARTNERS = 32
_FOLDS = 2
# Strength of the classifier's ridge; features have unit variance.
_INVERSE_RIDGE = 0.01

Compute = Callable[[FloatArray, FloatArray, np.random.Generator], tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingMetric:
    """A computation on the embeddings of two data sets that gives one or more figures.

    Attributes:
        name: of the computation.
        figures: what its numbers are, in order.
        compute: given real and other vectors of equal size, and randomness.
        at_most: most rows of each data set in one draw, where the cost grows too fast.
        family: of the metric.
    """

    name: str
    figures: tuple[Figure, ...]
    compute: Compute
    at_most: int | None = None
    family: str = field(default="fidelity", init=False)

    def score(self, comparison: Comparison) -> list[Score]:
        """Returns the figures, with interval, reference and baseline."""
        try:
            return self._score(comparison)
        except NotComputable as error:
            return not_computable(self.figures, error)

    def _score(self, comparison: Comparison) -> list[Score]:
        real, holdout = vectors_of(comparison.real), vectors_of(comparison.holdout)
        synthetic, baseline = vectors_of(comparison.synthetic), vectors_of(comparison.baseline)
        size = half_size(comparison, at_most=self.at_most)
        streams = Streams(comparison.seed)

        def compute(i: int, rows: Rows) -> dict[str, tuple[float, ...]]:
            ours = real[rows.real]
            others = {
                "synthetic": synthetic[rows.synthetic],
                "holdout": holdout[rows.holdout],
                "baseline": baseline[rows.baseline],
            }
            return {
                key: self.compute(ours, part, streams.get(self.name, key, i)) for key, part in others.items()
            }

        draws = map_draws(compute, draw_halves(comparison, self.name, size=size))
        return collect(self.figures, draws, n=size)


def vectors_of(sample: TextSample) -> FloatArray:
    """Returns the vectors of a data set.

    Raises:
        NotComputable: it has none.
    """
    if sample.vectors is None:
        raise NotComputable("the texts were not embedded")
    return sample.vectors


def fidelity_metrics() -> list[Metric]:
    """Returns every metric on embeddings."""
    repeated = "most of the synthetic texts are copies of one another"
    return [
        EmbeddingMetric(
            name="frechet",
            figures=(Figure(name="frechet_distance", better="lower", low=0),),
            compute=lambda real, other, rng: (frechet_distance(real, other),),
        ),
        EmbeddingMetric(
            name="manifold",
            figures=(
                Figure(name="precision", better="higher", low=0, high=1, undefined=repeated, is_share=True),
                Figure(name="recall", better="higher", low=0, high=1, is_share=True),
                Figure(name="density", better="higher", low=0, undefined=repeated),
                Figure(name="coverage", better="higher", low=0, high=1, is_share=True),
            ),
            compute=_compare_neighbourhoods,
        ),
        EmbeddingMetric(
            name="quantised",
            figures=(
                Figure(name="mauve", better="higher", low=0, high=1),
                Figure(name="kl_divergence", better="lower", low=0),
                Figure(name="total_variation", better="lower", low=0, high=1),
            ),
            compute=_compare_clusters,
        ),
        EmbeddingMetric(
            name="wasserstein",
            figures=(Figure(name="wasserstein", better="lower", low=0),),
            compute=lambda real, other, rng: (transport.wasserstein(real, other),),
            at_most=transport.MAX_EXACT,
        ),
        EmbeddingMetric(
            name="sinkhorn",
            figures=(Figure(name="sinkhorn_divergence", better="lower", low=0),),
            compute=lambda real, other, rng: (transport.sinkhorn_divergence(real, other),),
            at_most=transport.MAX_SINKHORN,
        ),
        EmbeddingMetric(
            name="mmd",
            figures=(Figure(name="squared_mmd", better="lower"),),
            compute=lambda real, other, rng: (transport.squared_mmd(real, other),),
        ),
        EmbeddingMetric(
            name="classifier",
            figures=(Figure(name="classifier_auc", better="reference", low=0, high=1),),
            compute=lambda real, other, rng: (classifier_auc(real, other, rng=rng),),
        ),
    ]


def _compare_neighbourhoods(
    real: FloatArray, other: FloatArray, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    found = manifold.neighbourhoods(real, other)
    return found.precision, found.recall, found.density, found.coverage


def _compare_clusters(
    real: FloatArray, other: FloatArray, rng: np.random.Generator
) -> tuple[float, float, float]:
    p, q = quantised.quantise(real, other, rng=rng)
    return (
        quantised.mauve(p, q),
        quantised.kl_divergence(p, q, n=len(real)),
        quantised.total_variation(p, q),
    )


def classifier_auc(real: FloatArray, synthetic: FloatArray, *, rng: np.random.Generator) -> float:
    """Area under the ROC curve of a logistic regression that tells synthetic from real rows.

    Classifier two-sample test (Lopez-Paz and Oquab 2017), judged on rows it was not trained on (two-fold
    cross-fitting). 0.5: it cannot tell them apart; 1: it always can. Values below 0.5 are chance, or copies:
    what a row teaches in one half is wrong of its twin in the other.

    Args:
        real: shape (n, d).
        synthetic: shape (m, d).
        rng: splits the rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    rows = np.concatenate([real, synthetic]).astype(np.float64)
    rows -= rows.mean(axis=0)
    rows /= np.maximum(rows.std(axis=0), 1e-9)
    is_synthetic = np.arange(len(rows)) >= len(real)
    # Folds of equal composition, or the share of a class in training would tell of its share in the test.
    folds = np.empty(len(rows), dtype=np.int64)
    folds[: len(real)] = rng.permutation(len(real)) % _FOLDS
    folds[len(real) :] = rng.permutation(len(synthetic)) % _FOLDS
    areas = []
    for fold in range(_FOLDS):
        train = folds != fold
        model = LogisticRegression(C=_INVERSE_RIDGE, max_iter=200).fit(rows[train], is_synthetic[train])
        areas.append(roc_auc_score(is_synthetic[~train], model.decision_function(rows[~train])))
    return float(np.mean(areas))


def frechet_distance(real: FloatArray, synthetic: FloatArray) -> float:
    """Frechet distance between Gaussians fitted to two sets of embeddings.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`; lower is nearer. It is biased upwards for small
    sets, so compare only figures from sets of equal size.

    Args:
        real: shape (n, d), n >= 2.
        synthetic: shape (m, d), m >= 2.
    """
    from scipy.linalg import eigh, eigvalsh

    real, synthetic = real.astype(np.float64), synthetic.astype(np.float64)
    shift = real.mean(axis=0) - synthetic.mean(axis=0)
    cov_real, cov_synthetic = np.cov(real, rowvar=False), np.cov(synthetic, rowvar=False)
    # tr((C1 C2)^(1/2)) = tr((C1^(1/2) C2 C1^(1/2))^(1/2)), symmetric and so free of complex roots.
    values, vectors = eigh(cov_real)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(eigvalsh(root @ cov_synthetic @ root), 0, None)).sum()
    return float(shift @ shift + np.trace(cov_real) + np.trace(cov_synthetic) - 2 * cross)


def cosine_to_seed(
    seeds: FloatArray, synthetic: FloatArray, *, rng: np.random.Generator
) -> tuple[float, float]:
    """Median cosine of each text to its own seed, and to other seeds drawn at random.

    Args:
        seeds: unit vectors, row i is the seed of row i of `synthetic`; shape (n, d), n >= 2.
        synthetic: unit vectors, shape (n, d).
        rng: pairs every text with up to 32 other seeds.
    """
    n = len(seeds)
    shifts = rng.choice(np.arange(1, n), size=min(n - 1, _PARTNERS), replace=False)
    own = np.sum(seeds * synthetic, axis=1)
    other = [np.sum(np.roll(seeds, shift, axis=0) * synthetic, axis=1) for shift in shifts]
    return float(np.median(own)), float(np.median(np.concatenate(other)))
