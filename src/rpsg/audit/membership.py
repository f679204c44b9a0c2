"""Membership inference on the release alone: who was in the data?"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rpsg.audit.auxiliary import AuxiliarySettings, auxiliary_scores
from rpsg.audit.bigram import bigram_scores
from rpsg.audit.estimators import auc, auc_interval, tpr_at_fpr
from rpsg.audit.finding import Finding, Game
from rpsg.audit.overlap import nearest_scores, overlap_scores, word_vectors
from rpsg.audit.permutation import JointTest, joint_test
from rpsg.audit.pool import BoolArray, FloatVector, Pool
from rpsg.errors import PrivateDataError
from rpsg.rng import Streams
from rpsg.types import Embedder

RATES = (0.01, 0.001)
# Inverse strength of the penalty on the weights of the combination.
_RIDGE = 0.1
_PERCENT = {0.01: "1 %", 0.001: "0.1 %"}
Progress = Callable[[str], None]


def membership_scores(
    pool: Pool,
    game: Game,
    *,
    embedders: Sequence[Embedder] = (),
    auxiliary: AuxiliarySettings | None = None,
    on_progress: Progress = lambda name: None,
) -> dict[str, FloatVector]:
    """Runs every attack that needs the release only; returns attack to one score a unit.

    Args:
        pool: members and non-members.
        game: the same, for the release and the public texts.
        embedders: local models for the nearest-text attack, beside words and their decomposition.
        auxiliary: size of the attacks with a language model; None leaves these out.
        on_progress: told the name of each group of attacks before it begins.

    Raises:
        PrivateDataError: an embedder is remote.
    """
    on_progress("runs of words")
    found = dict(overlap_scores(pool, game.synthetic, game.public))
    on_progress("nearest texts")
    vectors = word_vectors(pool, game.synthetic, game.public)
    for name, (private, released) in vectors.items():
        found |= _named(name, nearest_scores(private, released))
    for embedder in embedders:
        if embedder.trust != "local":
            raise PrivateDataError(f"embedder {embedder.name!r} is remote and may not read private texts")
        both = embedder.embed([*pool.texts, *game.synthetic])
        n = len(pool.texts)
        found |= _named(embedder.name, nearest_scores(both[:n], both[n:]))
    on_progress("bigram models")
    found["bigram_ratio"] = bigram_scores(pool, game.synthetic)
    if auxiliary is not None:
        on_progress("language models")
        found |= auxiliary_scores(pool, game.synthetic, auxiliary)
    return {name: pool.by_unit(values) for name, values in found.items()}


def _named(name: str, scores: tuple[FloatVector, FloatVector]) -> dict[str, FloatVector]:
    return {f"nearest {name}": scores[0], f"nearest five {name}": scores[1]}


def membership_findings(pool: Pool, scores: Mapping[str, FloatVector]) -> tuple[Finding, ...]:
    """Turns scores into figures: AUC, true positive rates at low false positive rates, p-values.

    One p-value decides for all attacks together (see `joint_test`), and one for their logistic combination,
    which is fitted on a random half of the units and judged on the other.

    Args:
        pool: knows who is a member.
        scores: attack to one score a unit.
    """
    table = np.stack(list(scores.values()))
    tests = joint_test(table, pool.is_member, seed=pool.seed, draw=pool.assignments)
    found = [_joint_finding(pool, tests, len(scores))]
    combined, judged = combine(pool, scores)
    test = joint_test(
        combined[None, judged],
        pool.is_member[judged],
        seed=pool.seed + 1,
        draw=lambda n, rng: pool.restrict(judged).assignments(n, rng),
    )
    found += _figures(
        "combined",
        combined[judged],
        pool.is_member[judged],
        p_value=test.p_joint,
        decides=True,
        detail="logistic combination of all scores, fitted on the other half of the units",
    )
    for (name, values), p_value in zip(scores.items(), tests.p_each, strict=True):
        found += _figures(name, values, pool.is_member, p_value=p_value)
    return tuple(found)


def combine(pool: Pool, scores: Mapping[str, FloatVector]) -> tuple[FloatVector, "np.ndarray"]:
    """Fits a logistic model of membership on half of the units.

    No score counts against membership: every attack says which way it points. Weights of either sign would
    learn from a release that was made of the non-members to call these members.

    Returns:
        Its score of every unit, and the mask of units that it was not fitted on.
    """
    from sklearn.preprocessing import QuantileTransformer

    features = np.stack(list(scores.values()), axis=1)
    fitted_on = np.zeros(pool.n_units, dtype=bool)
    rng = Streams(pool.seed).get("audit combination")
    for side in (True, False):
        rows = rng.permutation(np.flatnonzero(pool.is_member == side))
        fitted_on[rows[: len(rows) // 2]] = True
    # Ranks: one copied text's score must not outweigh all others.
    ranks = QuantileTransformer(n_quantiles=min(100, int(fitted_on.sum())), output_distribution="normal")
    fitted = ranks.fit(features[fitted_on]).transform(features)
    combined: FloatVector = fitted @ _weights(fitted[fitted_on], pool.is_member[fitted_on])
    return combined, ~fitted_on


def _weights(features: FloatVector, is_member: BoolArray) -> FloatVector:
    """Returns the weights of ridge logistic regression, none of them below 0, shape (n_features,)."""
    from scipy.optimize import minimize
    from scipy.special import expit

    signs = np.where(is_member, 1.0, -1.0)
    # The last column is the intercept, which is free.
    columns = np.column_stack([features, np.ones(len(features))])

    def loss(weights: FloatVector) -> tuple[float, FloatVector]:
        margins = signs * (columns @ weights)
        penalty = weights * np.append(np.ones(features.shape[1]), 0.0)
        slope = -(signs * expit(-margins)) @ columns
        value = _RIDGE * float(np.logaddexp(0.0, -margins).sum()) + float(penalty @ weights) / 2
        return value, _RIDGE * slope + penalty

    bounds = [(0.0, None)] * features.shape[1] + [(None, None)]
    found = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds)
    weights: FloatVector = found.x[:-1]
    return weights


def _joint_finding(pool: Pool, tests: JointTest, n_attacks: int) -> Finding:
    return Finding(
        family="membership",
        attack="all attacks jointly",
        statistic="largest standardised statistic",
        value=None,
        p_value=tests.p_joint,
        n_members=pool.n_members,
        n_nonmembers=pool.n_nonmembers,
        decides=True,
        detail=(
            f"{n_attacks} attacks, each at several cut-offs, {tests.n_permutations} permutations of "
            "membership; one p-value for all of them"
        ),
    )


def _figures(
    attack: str,
    scores: FloatVector,
    is_member: "np.ndarray",
    *,
    p_value: float,
    decides: bool = False,
    detail: str = "",
) -> list[Finding]:
    members, others = scores[is_member], scores[~is_member]
    low, high = auc_interval(members, others)
    n_members, n_nonmembers = len(members), len(others)
    found = [
        Finding(
            family="membership",
            attack=attack,
            statistic="AUC",
            value=auc(members, others),
            low=low,
            high=high,
            control=0.5,
            p_value=p_value,
            n_members=n_members,
            n_nonmembers=n_nonmembers,
            decides=decides,
            detail=detail,
        )
    ]
    for fpr in RATES:
        rate = tpr_at_fpr(members, others, fpr)
        found.append(
            Finding(
                family="membership",
                attack=attack,
                statistic=f"TPR at {_PERCENT[fpr]} FPR",
                value=rate.value,
                low=rate.low,
                high=rate.high,
                control=fpr,
                n_members=n_members,
                n_nonmembers=n_nonmembers,
                detail="" if rate.value is not None else f"needs {round(1 / fpr) - 1} non-members",
            )
        )
    return found
