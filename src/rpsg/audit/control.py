"""Is the split fair? A classifier that never sees the release must not tell members from non-members.

If words alone tell the two sides apart, a membership attack may score well without any leak, and has done so
in published work (Duan et al. 2024; Meeus et al. 2025). Then nothing the audit says would mean anything.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rpsg.audit.pool import MIN_UNITS, FloatVector, Pool
from rpsg.errors import DataError
from rpsg.rng import Streams
from rpsg.text import words_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

N_FOLDS = 5
ALPHA = 0.01
_N_PERMUTATIONS = 999
_SMOOTHING = 1.0
_BLOCK = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the classifier without the release reached.

    Attributes:
        auc: over units, each scored by models that were not trained on it; 0.5 is expected, and less where
            sides were balanced by label: one member too many in training is one too few in the test.
        p_value: share of random assignments with an AUC as high, the models trained anew for each.
    """

    auc: float
    p_value: float

    @property
    def is_biased(self) -> bool:
        """Whether the two sides differ by more than chance (p < 0.01)."""
        return self.p_value < ALPHA


def bag_of_words_control(pool: Pool, *, n_permutations: int = _N_PERMUTATIONS) -> Control:
    """Tries to tell members from non-members by their words alone.

    A multinomial naive Bayes classifier, five folds over units. It is cheap enough to be trained anew for
    every permutation of the membership labels, so the p-value is exact for a random split, and too large
    rather than too small for one that was balanced by label.
    """
    counts = _unit_counts(pool)
    rng = Streams(pool.seed).get("audit control")
    folds = rng.permutation(pool.n_units) % N_FOLDS
    labels = pool.is_member.astype(np.float64)
    observed = _aucs(counts, folds, labels[:, None])[0]
    n_as_high = 0
    for start in range(0, n_permutations, _BLOCK):
        n = min(_BLOCK, n_permutations - start)
        drawn = pool.assignments(n, rng).T.astype(np.float64)
        n_as_high += int((_aucs(counts, folds, drawn) >= observed - 1e-12).sum())
    return Control(auc=float(observed), p_value=(1 + n_as_high) / (1 + n_permutations))


def check_split(pool: Pool, *, drawn: bool = False) -> Control:
    """Runs the control.

    Args:
        pool: members and non-members.
        drawn: rpsg itself assigned the units by a secret coin. Then one such split in a hundred is called
            biased by chance alone; refusing those would make the tests after it less exact, not more.

    Raises:
        DataError: the two sides differ by more than chance, or no test could tell: tests exchange units of
            as many texts only (`Pool.assignments`), and a side has fewer than 20 with a partner.
    """
    sizes = np.bincount(pool.units, minlength=pool.n_units)
    members, others = sizes[pool.is_member], sizes[~pool.is_member]
    for own, other, side in ((members, others, "member"), (others, members, "non-member")):
        n_partners = int(np.isin(own, other).sum())
        if n_partners < MIN_UNITS:
            raise DataError(
                f"only {n_partners} of {len(own)} {side} units have as many texts as a unit of the other "
                f"side, and {MIN_UNITS} are needed: whole units must be split at random; let rpsg do it: "
                "rpsg audit --from-data"
            )
    control = bag_of_words_control(pool)
    if control.is_biased and not drawn:
        raise DataError(
            f"the split is biased: words alone, without the release, tell members from non-members (AUC "
            f"{control.auc:.3f}, p = {control.p_value:.3f}), so any attack would seem to work. Members and "
            "non-members must be random parts of one source; let rpsg make them: rpsg audit --from-data"
        )
    return control


def _unit_counts(pool: Pool) -> "csr_matrix":
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(analyzer=words_of, dtype=np.float64).fit_transform(pool.texts)
    n = len(pool.texts)
    by_unit = csr_matrix((np.ones(n), (pool.units, np.arange(n))), shape=(pool.n_units, n))
    return (by_unit @ words).tocsr()


def _aucs(counts: "csr_matrix", folds: np.ndarray, labels: FloatVector) -> FloatVector:
    """Returns one cross-fitted AUC a column of labels, shape (n_units, n_assignments)."""
    scores = np.empty_like(labels)
    for fold in range(N_FOLDS):
        test, train = folds == fold, folds != fold
        positive = counts[train].T @ labels[train]
        negative = counts[train].T @ (1.0 - labels[train])
        weights = np.log(positive + _SMOOTHING) - np.log(positive.sum(axis=0) + _SMOOTHING * len(positive))
        weights -= np.log(negative + _SMOOTHING) - np.log(negative.sum(axis=0) + _SMOOTHING * len(negative))
        found = counts[test] @ weights
        # A fold's models differ from the next fold's: only ranks within a fold compare.
        scores[test] = np.argsort(np.argsort(found, axis=0), axis=0) / test.sum()
    return np.array([_auc(scores[:, i], labels[:, i]) for i in range(labels.shape[1])])


def _auc(scores: FloatVector, labels: FloatVector) -> float:
    from scipy.stats import rankdata

    n_positive = labels.sum()
    ranks = rankdata(scores)[labels > 0].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (len(labels) - n_positive)))
