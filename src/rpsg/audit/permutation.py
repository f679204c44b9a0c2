"""Permutation tests of scores against membership, exact whatever the scores are.

A release that copies a few records lifts only those records' scores, and an AUC hardly moves; a release that
leaks a little of everybody moves only the AUC. The statistic therefore looks at several cut-offs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rpsg.audit.pool import BoolArray, FloatVector
from rpsg.rng import Streams

CUTS = (0.01, 0.05, 0.2)
N_PERMUTATIONS = 9_999
_BLOCK = 250
Draw = Callable[[int, np.random.Generator], BoolArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class JointTest:
    """Outcome of testing several attacks at once.

    Attributes:
        p_each: p-value of each attack on its own.
        p_joint: p-value of the hypothesis that no attack works: that of the largest statistic of all, with
            the attacks' dependence accounted for (Westfall and Young 1993).
        n_permutations: draws behind them; no p-value is below 1 / (n_permutations + 1).
    """

    p_each: tuple[float, ...]
    p_joint: float
    n_permutations: int


def joint_test(
    scores: FloatVector,
    is_member: BoolArray,
    *,
    seed: int,
    n_permutations: int = N_PERMUTATIONS,
    draw: Draw | None = None,
) -> JointTest:
    """Tests whether members score higher, at any of several cut-offs and on the whole.

    The statistic of an attack is the largest of: the number of members among its top 1, 5 and 20 %,
    and the members' rank sum, each in standard deviations of its exact null distribution. A permutation
    assigns membership to units at random, keeping the number of members. Ties are broken at random, blind to
    membership.

    Args:
        scores: one row an attack, one column a unit, shape (a, n); higher means "member".
        is_member: shape (n,).
        seed: of the permutations and the ties.
        n_permutations: assignments drawn.
        draw: draws so many assignments, shape (n, n_units); None lets any unit exchange with any other.
    """
    draw = draw or _exchange_all(is_member)
    weights = _weights(scores, int(is_member.sum()), Streams(seed).get("audit ties"))
    observed = _statistic(weights, is_member[None, :].astype(np.float32))[:, 0]
    rng = Streams(seed).get("audit permutations")
    n_above, n_joint, largest = np.zeros(len(scores)), 0, observed.max()
    for start in range(0, n_permutations, _BLOCK):
        n = min(_BLOCK, n_permutations - start)
        drawn = _statistic(weights, draw(n, rng).astype(np.float32))
        n_above += (drawn >= observed[:, None] - 1e-6).sum(axis=1)
        n_joint += int((drawn.max(axis=0) >= largest - 1e-6).sum())
    return JointTest(
        p_each=tuple(float(p) for p in (1 + n_above) / (1 + n_permutations)),
        p_joint=(1 + n_joint) / (1 + n_permutations),
        n_permutations=n_permutations,
    )


def _exchange_all(is_member: BoolArray) -> Draw:
    return lambda n, rng: rng.permuted(np.tile(is_member, (n, 1)), axis=1)


def _weights(scores: FloatVector, n_members: int, rng: np.random.Generator) -> "np.ndarray":
    """Returns standardised linear statistics of the labels, shape (a, cuts + 1, n).

    Each is a sum over members of a fixed weight, so its null mean and variance are known: for weights w and m
    of n drawn without replacement, m mean(w) and m (n - m) / (n - 1) var(w).
    """
    n_attacks, n = scores.shape
    ties = rng.random(n)
    weights = np.zeros((n_attacks, len(CUTS) + 1, n), dtype=np.float32)
    for row in range(n_attacks):
        order = np.lexsort((ties, -scores[row]))
        rank = np.empty(n)
        rank[order] = np.arange(n)
        for column, cut in enumerate(CUTS):
            weights[row, column] = rank < max(1, round(cut * n))
        weights[row, -1] = n - rank
    means = weights.mean(axis=2, keepdims=True)
    spread = weights.std(axis=2, keepdims=True) * np.sqrt(n_members * (n - n_members) / (n - 1))
    standardised: np.ndarray = (weights - means) / np.maximum(spread, 1e-12)
    return standardised


def _statistic(weights: "np.ndarray", labels: "np.ndarray") -> "np.ndarray":
    n_attacks, n_cuts, n = weights.shape
    sums = weights.reshape(-1, n) @ labels.T
    largest: np.ndarray = sums.reshape(n_attacks, n_cuts, -1).max(axis=1)
    return largest
