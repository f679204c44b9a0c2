"""Lower bounds of epsilon from guesses: what the claimed epsilon must be at least.

A bound holds for one neighbouring relation, the one that its coins played. Independent coins, each putting
one unit in or leaving it out, bound the epsilon of adding or removing a unit. A split of fixed size does
not: there a unit is in exactly when another is out, so it bounds the epsilon of replacing one unit, which
may be twice as large. A canary planted r times is a group of r records, and bounds the epsilon of r.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rpsg.audit.estimators import LEVEL, clopper_pearson

_EPSILON_MAX = 64.0
_STEPS = 50
POWER_SIZES = (100, 500, 1000, 5000)

Curve = Literal["approximate DP", "Gaussian"]


def one_run_epsilon(m: int, r: int, v: int, delta: float = 0.0, level: float = LEVEL) -> float:
    """Returns a lower bound of epsilon from one run of m independent coins (Steinke et al. 2023, Thm 5.2).

    Valid for adding or removing the unit of one coin. With q = 1 / (1 + exp(-epsilon)), beta = P[Bin(r, q)
    >= v] and alpha = max_i (P[Bin(r, q) >= v - i] - beta) / i over i = 1..v, any (epsilon, delta)-DP
    mechanism allows v correct guesses with probability at most beta + 2 m delta alpha.

    Args:
        m: coins thrown, each with probability one half.
        r: guesses made; fixed before the scores are seen.
        v: guesses that were right.
        delta: of the claim.
        level: confidence, one-sided.

    Returns:
        The largest epsilon that is refuted; 0 if none is.
    """
    _check_counts(m, r, v)

    def refuted(epsilon: float) -> bool:
        return _one_run_p(m, r, v, epsilon, delta) <= 1 - level

    return _largest(refuted)


def _one_run_p(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Returns the largest probability of v right guesses that (epsilon, delta)-DP allows."""
    from scipy.special import expit
    from scipy.stats import binom

    q = float(expit(epsilon))
    beta = float(binom.sf(v - 1, r, q))
    if v == 0 or delta == 0:
        return min(1.0, beta)
    steps = np.arange(1, v + 1)
    alpha = float(((binom.sf(v - steps - 1, r, q) - beta) / steps).max())
    return min(1.0, beta + 2 * m * delta * alpha)


def two_sided_epsilon(
    hits: int, n_in: int, false_hits: int, n_out: int, delta: float = 0.0, level: float = LEVEL
) -> float:
    """Returns a lower bound of epsilon from rates of a fixed event in two worlds, many runs or one.

    epsilon >= max(ln((TPR_low - delta) / FPR_high), ln((TNR_low - delta) / FNR_high)), each Clopper-Pearson
    end at (1 + level) / 2: both inequalities use the same two ends, so their maximum holds at `level`.
    The trials of a world must be independent: separate runs, or coins that do not influence each other.
    Where the coins share one run, prefer `one_run_epsilon`, which does not assume that.

    Args:
        hits: trials with the unit in which the event occurred.
        n_in: trials with the unit.
        false_hits: trials without it in which the event occurred.
        n_out: trials without it.
        delta: of the claim.
        level: confidence.
    """
    tpr_low, fnr_high = clopper_pearson(hits, n_in, level)[0], clopper_pearson(n_in - hits, n_in, level)[1]
    tnr_low = clopper_pearson(n_out - false_hits, n_out, level)[0]
    fpr_high = clopper_pearson(false_hits, n_out, level)[1]
    return max(_log_ratio(tpr_low - delta, fpr_high), _log_ratio(tnr_low - delta, fnr_high))


def gaussian_mu_bound(hits: int, n_in: int, false_hits: int, n_out: int, level: float = LEVEL) -> float:
    """Returns a lower bound of mu, never below 0: mu >= Phi^-1(1 - FPR_high) - Phi^-1(FNR_high).

    Only for a mechanism proved to be Gaussian: on any other it invents an epsilon, because it takes the tail
    of the privacy loss from the assumed shape and not from the trials. Arguments as `two_sided_epsilon`.
    """
    from scipy.stats import norm

    fpr_high = clopper_pearson(false_hits, n_out, level)[1]
    fnr_high = clopper_pearson(n_in - hits, n_in, level)[1]
    if fpr_high >= 1 or fnr_high >= 1:
        return 0.0
    return max(0.0, float(norm.ppf(1 - fpr_high) - norm.ppf(fnr_high)))


def gaussian_mechanism_epsilon(
    hits: int, n_in: int, false_hits: int, n_out: int, delta: float, level: float = LEVEL
) -> float:
    """Returns `gaussian_mu_bound` as epsilon at `delta`: only for a mechanism proved to be Gaussian."""
    from rpsg.privacy.accounting import gaussian_epsilon

    mu = gaussian_mu_bound(hits, n_in, false_hits, n_out, level)
    return gaussian_epsilon(mu, delta)


# --- f-DP, one run ----------------------------------------------------------------------------------


def fdp_one_run_epsilon(
    m: int, r: int, v: int, delta: float, level: float = LEVEL, *, curve: Curve = "approximate DP"
) -> float:
    """Returns a lower bound of epsilon from one run through the trade-off curve (Mahloujifar et al. 2024).

    Let p_i be the probability of exactly i right guesses of r on m coins of one half, and f = 1 - fbar the
    trade-off curve. Turning the coin of a random guess gives, for every i (their inequality for the p_i with
    k = 2 choices, in the form that their numerical procedure with abstention uses),

        (1/m) sum_{l > i} l p_l  <=  fbar((1/m) sum_{l >= i} (r - l) p_l).

    The least total probability that a tail P[v or more] = 1 - level then needs is found from i = v down to
    0; a curve for which it is above 1 is refuted. The proof that the greedy solution is the least one is in
    docs/audit-canaries.md.

    Args:
        m: coins thrown, each with probability one half, independent.
        r: guesses made; fixed before the scores are seen.
        v: guesses that were right.
        delta: of the claim; epsilon is given at it.
        level: confidence, one-sided.
        curve: "approximate DP" assumes nothing about the mechanism; "Gaussian" takes its curve to be that
            of a Gaussian mechanism and holds only where that is proved.
    """
    from rpsg.privacy.accounting import gaussian_mu

    _check_counts(m, r, v)

    def refuted(epsilon: float) -> bool:
        if curve == "approximate DP":
            inverse = _approximate_inverse(epsilon, delta)
        else:
            inverse = _gaussian_inverse(gaussian_mu(epsilon, delta))
        return _least_total(m, r, v, 1 - level, inverse) > 1

    return _largest(refuted, least=1e-6 if curve == "Gaussian" else 0.0)


def _least_total(m: int, r: int, v: int, tail: float, inverse: Callable[[float], float]) -> float:
    """Returns the least total probability of a law that has P[v or more of r right] = `tail`.

    Once it is above 1 the exact figure does not matter, and the sum stops.
    """
    right, wrong = v * tail / m, (r - v) * tail / m
    for i in range(v - 1, -1, -1):
        if (right + wrong) * m > r:
            break
        needed = max(wrong, inverse(right))
        right += i / (r - i) * (needed - wrong)
        wrong = needed
    return (right + wrong) * m / r


def _approximate_inverse(epsilon: float, delta: float) -> Callable[[float], float]:
    grow = math.exp(epsilon)
    return lambda y: max(0.0, (y - delta) / grow, 1 - delta - grow * (1 - y))


def _gaussian_inverse(mu: float) -> Callable[[float], float]:
    from scipy.special import ndtr, ndtri

    return lambda y: float(ndtr(ndtri(min(1.0, y)) - mu))


# --- power ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The largest epsilon that an attack without one error can certify.

    Attributes:
        m: coins; half of them fell on "in".
        one_run: by `one_run_epsilon` with a guess for every coin.
        two_sided: by `two_sided_epsilon`.
    """

    m: int
    one_run: float
    two_sided: float


def power_table(delta: float, sizes: Sequence[int] = POWER_SIZES, level: float = LEVEL) -> tuple[Power, ...]:
    """Returns what an audit of each size could certify at best: a claim above it cannot be refuted."""
    return tuple(
        Power(
            m=m,
            one_run=one_run_epsilon(m, m, m, delta, level),
            two_sided=two_sided_epsilon(m - m // 2, m - m // 2, 0, m // 2, delta, level),
        )
        for m in sizes
    )


def _largest(refuted: Callable[[float], bool], least: float = 0.0) -> float:
    """Returns the largest refuted epsilon, rounded down; 0 if `least` is not refuted."""
    if not refuted(least):
        return 0.0
    low, high = least, _EPSILON_MAX
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _log_ratio(above: float, below: float) -> float:
    return max(0.0, math.log(above / below)) if above > 0 else 0.0


def _check_counts(m: int, r: int, v: int) -> None:
    if not 0 <= v <= r <= m or r == 0:
        raise ValueError(f"{v} right of {r} guesses on {m} coins cannot be")
