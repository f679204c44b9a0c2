"""What an attack's scores prove: rates, AUC and p-values with their intervals.

Scores are higher where the attack believes more in membership. Every interval and p-value takes the scored
texts to be independent draws, members and non-members exchangeable if nothing leaked. Lower bounds on
epsilon are in `rpsg.audit.lower_bounds`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
# Permutations are drawn in blocks of about this many numbers.
_BLOCK = 4_000_000
# Up to this many ways to label the texts, all of them are tried.
_ENUMERABLE = 20_000
_BESIDE = 1e-9

Scores = npt.ArrayLike
_Values = npt.NDArray[np.float64]
_Whole = npt.NDArray[np.int64]


def clopper_pearson(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns the exact two-sided interval of a rate of `k` in `n`; each end holds at (1 + level) / 2.

    Without a trial it is (0, 1).
    """
    from scipy.stats import beta

    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no rate")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


# --- area under the ROC curve ---------------------------------------------------------------------


def auc(member_scores: Scores, nonmember_scores: Scores) -> float:
    """Returns P(member scores higher) + P(tie) / 2, the area under the ROC curve."""
    members, nonmembers = _checked(member_scores), _checked(nonmember_scores)
    doubled = _doubled_ranks(members, nonmembers)[: len(members)].sum()
    return _auc_of(int(doubled), len(members), len(nonmembers))


def auc_interval(
    member_scores: Scores, nonmember_scores: Scores, level: float = LEVEL
) -> tuple[float, float]:
    """Returns an interval of the AUC, the wider of two at each end.

    DeLong, DeLong & Clarke-Pearson (1988) estimate the variance from the scores themselves, so a leak of a
    few members is not smoothed away, but it is zero for a perfect attack. Newcombe (2006, method 5) takes
    the variance of Hanley & McNeil at the interval's own end, which stays honest there.
    """
    from scipy.stats import norm

    members, nonmembers = _checked(member_scores), _checked(nonmember_scores)
    z = float(norm.ppf((1 + level) / 2))
    value = auc(members, nonmembers)
    spread = z * math.sqrt(_delong_variance(members, nonmembers))
    low, high = _newcombe(value, len(members), len(nonmembers), z)
    return max(0.0, min(low, value - spread)), min(1.0, max(high, value + spread))


def _delong_variance(members: _Values, nonmembers: _Values) -> float:
    from scipy.stats import rankdata

    m, n = len(members), len(nonmembers)
    ranks = _doubled_ranks(members, nonmembers) / 2
    over_nonmembers = (ranks[:m] - rankdata(members)) / n
    under_members = 1 - (ranks[m:] - rankdata(nonmembers)) / m
    return sum(
        float(part.var(ddof=1)) / len(part) for part in (over_nonmembers, under_members) if len(part) > 1
    )


def _newcombe(value: float, m: int, n: int, z: float) -> tuple[float, float]:
    from scipy.optimize import brentq

    pairs = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        # Zero where theta is exactly z of its own standard errors away from the observed value.
        shape = 1 + pairs * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - value) ** 2 - z * z * theta * (1 - theta) * shape / (m * n)

    # At 0 and at 1 the value itself is a root, with no variance; the one that is wanted lies beside it.
    low = float(brentq(excess, 0.0, value * (1 - _BESIDE))) if value > 0 else 0.0
    high = float(brentq(excess, value + (1 - value) * _BESIDE, 1.0)) if value < 1 else 1.0
    return low, high


# --- permutation test ------------------------------------------------------------------------------


def permutation_p(
    member_scores: Scores, nonmember_scores: Scores, *, rng: np.random.Generator, n: int = 9999
) -> float:
    """Returns the one-sided p-value of "members score higher": Mann-Whitney's statistic, labels permuted.

    Ties get mid-ranks, and a permutation that equals the observed statistic counts against the finding, so
    the test is exact with ties too. Where there are few ways to label the texts all are tried; otherwise
    `n` are drawn and the observed one is counted with them, so the smallest p-value is 1 / (n + 1).
    """
    members, nonmembers = _checked(member_scores), _checked(nonmember_scores)
    ranks, m = _doubled_ranks(members, nonmembers), len(members)
    observed = ranks[:m].sum()
    if math.comb(len(ranks), m) <= _ENUMERABLE:
        sums = _all_sums(ranks, m)
        return float((sums >= observed).mean())
    reached = sum(int((block[:, :m].sum(axis=1) >= observed).sum()) for block in _shuffles(ranks, n, rng))
    return (1 + reached) / (1 + n)


def _all_sums(ranks: _Whole, m: int) -> _Whole:
    from itertools import combinations

    return np.fromiter((sum(chosen) for chosen in combinations(ranks.tolist(), m)), dtype=np.int64)


def _shuffles(ranks: _Whole, n: int, rng: np.random.Generator) -> Iterator[_Whole]:
    size = max(1, _BLOCK // len(ranks))
    for start in range(0, n, size):
        rows = min(size, n - start)
        yield rng.permuted(np.broadcast_to(ranks, (rows, len(ranks))), axis=1)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Returns Holm's (1979) adjusted p-values in the same order: the family-wise error holds at any level."""
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return tuple(adjusted)


# --- true positives where false ones are rare ------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """True positive rate at a threshold that non-members set.

    Attributes:
        value: share of the members above the threshold; None where there are too few non-members for the
            false positive rate asked for.
        low: lower Clopper-Pearson end; 0 where there is no value.
        high: upper end; 1 where there is no value.
        hits: members above the threshold.
        n: members.
        fpr: expected false positive rate of the threshold on new non-members, never above the one asked for
            where there is a value.
        fpr_high: upper Clopper-Pearson end of the threshold's own false positive rate.
    """

    value: float | None
    low: float
    high: float
    hits: int
    n: int
    fpr: float
    fpr_high: float


def tpr_at_fpr(member_scores: Scores, nonmember_scores: Scores, fpr: float, level: float = LEVEL) -> Rate:
    """Returns the share of members that score strictly above a threshold with this false positive rate.

    The threshold is the (k + 1)-th highest score of the n non-members, k + 1 the largest whole number not
    above fpr (n + 1): a new non-member is above it with probability at most (k + 1) / (n + 1) <= fpr. Taking
    the k = fpr n instead, or counting ties as hits, would be optimistic. A rate below 1 / (n + 1) cannot be
    had from n non-members: then there is no value.
    """
    members, nonmembers = _checked(member_scores), _checked(nonmember_scores)
    if not 0 < fpr < 1:
        raise ValueError(f"a false positive rate lies between 0 and 1 (given: {fpr})")
    n = len(nonmembers)
    # The small term keeps 0.01 x 100 from rounding down.
    place = math.floor(fpr * (n + 1) + 1e-9)
    rank = max(place, 1)
    hits = int((members > np.sort(nonmembers)[-rank]).sum())
    low, high = clopper_pearson(hits, len(members), level) if place else (0.0, 1.0)
    return Rate(
        value=hits / len(members) if place else None,
        low=low,
        high=high,
        hits=hits,
        n=len(members),
        fpr=rank / (n + 1),
        fpr_high=clopper_pearson(rank - 1, n, level)[1],
    )


# --- ranks -----------------------------------------------------------------------------------------


def _checked(scores: Scores) -> _Values:
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(values) == 0 or np.isnan(values).any():
        raise ValueError("an attack scores at least one text on each side, and no score is NaN")
    return values


def _doubled_ranks(members: _Values, nonmembers: _Values) -> _Whole:
    """Mid-ranks of members, then non-members, times two: whole numbers, so sums compare exactly."""
    from scipy.stats import rankdata

    ranks: _Whole = np.rint(2 * rankdata(np.concatenate([members, nonmembers]))).astype(np.int64)
    return ranks


def _auc_of(doubled_rank_sum: int, m: int, n: int) -> float:
    return (doubled_rank_sum - m * (m + 1)) / (2 * m * n)
