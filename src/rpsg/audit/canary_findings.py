"""What the release shows of the coins: AUC and lower bounds of epsilon by kind of canary.

What is guessed by which score, and how many guesses are made, stands in the secrets file since before the
release (`Secrets.primary`, `Secrets.guess_shares`). Scores never see a coin; the coins are looked at here,
to count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rpsg.audit.auxiliary import AuxiliarySettings
from rpsg.audit.canary import KINDS, MIN_CANARIES, Canary, Kind, ScoreName, Secrets
from rpsg.audit.canary_scores import likeness, model_scores, score_canaries
from rpsg.audit.estimators import LEVEL, auc, auc_interval, clopper_pearson, permutation_p, tpr_at_fpr
from rpsg.audit.finding import Finding
from rpsg.audit.lower_bounds import one_run_epsilon, power_table, two_sided_epsilon
from rpsg.audit.pool import BoolArray, FloatVector
from rpsg.audit.verdict import ALPHA
from rpsg.errors import DataError
from rpsg.rng import Streams
from rpsg.types import Embedder

_FPR = 0.01
ALL_KINDS = "all_kinds"
# Where a kind has fewer canaries on one side, nothing is said of it.
_MIN_SIDE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the audited release claims, for the units that one coin moves.

    Attributes:
        delta: lower bounds of epsilon are given at it.
        epsilon: by number of units that differ; empty where the release claims nothing finite.
    """

    delta: float
    epsilon: Mapping[int, float]


def canary_findings(
    secrets: Secrets,
    synthetic: Sequence[str],
    *,
    claim: Claim,
    public: Sequence[str] = (),
    embedder: Embedder | None = None,
    auxiliary: AuxiliarySettings | None = None,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Scores every canary by the release alone and compares with the coins.

    Args:
        secrets: canaries and coins.
        synthetic: all released texts.
        claim: the card's figures, or only its delta.
        public: texts that the adversary knows; no part of the data.
        embedder: for the nearest released text; not the generator's.
        auxiliary: size of the language models trained on the release; None leaves their scores out.
        seed: fixes how ties are broken and which half a threshold is chosen on.

    Returns:
        By kind: AUC of each score, of which the one fixed in advance decides. Then, by how many units a
        coin moves, lower bounds of epsilon over all kinds, at 95 %; `is_leak` where one is above the claim
        at 99 %, over all groups. Then
        attribute inference on fact canaries.

    Raises:
        DataError: nothing was released.
    """
    if not synthetic:
        raise DataError("there is no released text to score")
    streams = Streams(seed)
    found: list[Finding] = []
    guesses: list[_Guesses] = []
    ordered = [canary for kind in KINDS for canary in secrets.of_kind(kind)]
    models: Mapping[ScoreName, FloatVector] = {}
    if auxiliary is not None:
        models = model_scores(ordered, synthetic, settings=auxiliary, public=public, seed=seed)
    for kind in KINDS:
        canaries = secrets.of_kind(kind)
        if canaries:
            scores = dict(score_canaries(canaries, synthetic, public=public, embedder=embedder))
            rows = [row for row, canary in enumerate(ordered) if canary.kind == kind]
            scores |= {name: values[rows] for name, values in models.items()}
            primary = secrets.primary[kind]
            found += _of_kind(kind, canaries, scores, primary, streams)
            guesses.append(_Guesses.of(canaries, scores[primary]))
    pooled = _Guesses(
        strength=np.concatenate([item.strength for item in guesses]),
        looks_in=np.concatenate([item.looks_in for item in guesses]),
        is_in=np.concatenate([item.is_in for item in guesses]),
    )
    places = {canary.canary_id: row for row, canary in enumerate(ordered)}
    groups = secrets.groups()
    for size, group in groups.items():
        for name, part in ((ALL_KINDS, group), *_kinds_of(group)):
            chosen = pooled.part([places[canary.canary_id] for canary in part])
            bounds = _bounds(name, size, chosen, secrets, claim, streams)
            if name == ALL_KINDS and _refutes(bounds[0], size, chosen, len(groups), secrets, claim, streams):
                bounds[0] = replace(bounds[0], is_leak=True)
            found += bounds
    facts = [canary for canary in secrets.of_kind("fact") if canary.fact is not None]
    if facts:
        found += _attribute(facts, synthetic, streams.get("canary attribute"))
    return tuple(found)


def _kinds_of(canaries: Sequence[Canary]) -> list[tuple[str, list[Canary]]]:
    parts = [(kind, [canary for canary in canaries if canary.kind == kind]) for kind in KINDS]
    return [(kind, part) for kind, part in parts if len(part) >= MIN_CANARIES]


# --- by kind --------------------------------------------------------------------------------------


def _of_kind(
    kind: Kind,
    canaries: Sequence[Canary],
    scores: Mapping[ScoreName, FloatVector],
    primary: ScoreName,
    streams: Streams,
) -> list[Finding]:
    is_in = _coins(canaries)
    n_in, n_out = int(is_in.sum()), int((~is_in).sum())
    if min(n_in, n_out) < _MIN_SIDE:
        few = f"too few {kind} canaries: {n_in} in and {n_out} out"
        return [_finding(f"{kind}_{primary}", "AUC", None, n_in=n_in, n_out=n_out, detail=few)]
    found = []
    for name in (primary, *(name for name in scores if name != primary)):
        inside, outside = scores[name][is_in], scores[name][~is_in]
        low, high = auc_interval(inside, outside)
        found.append(
            Finding(
                family="canary",
                attack=f"{kind}_{name}",
                statistic="AUC",
                value=auc(inside, outside),
                low=low,
                high=high,
                control=0.5,
                p_value=permutation_p(inside, outside, rng=streams.get("canary", kind, name)),
                n_members=n_in,
                n_nonmembers=n_out,
                decides=name == primary,
                detail=f"canaries in against canaries left out, score {name}; 0.5 is a blind guess",
            )
        )
    rate = tpr_at_fpr(scores[primary][is_in], scores[primary][~is_in], _FPR)
    found.append(
        Finding(
            family="canary",
            attack=f"{kind}_{primary}",
            statistic=f"TPR at {_FPR:.0%} FPR",
            value=rate.value,
            low=rate.low,
            high=rate.high,
            n_members=n_in,
            n_nonmembers=n_out,
            detail=f"score {primary}; no value below {1 / _FPR - 1:.0f} canaries left out",
        )
    )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guesses:
    """What a kind's primary score says of some canaries, blind to their coins.

    Attributes:
        strength: standard deviations above the kind's mean, shape (n,): comparable between kinds.
        looks_in: whether the score is in the higher of the kind's two clusters, shape (n,).
        is_in: the coins, shape (n,): for counting.
    """

    strength: FloatVector
    looks_in: BoolArray
    is_in: BoolArray

    @classmethod
    def of(cls, canaries: Sequence[Canary], scores: FloatVector) -> "_Guesses":
        spread = float(scores.std())
        return cls(
            strength=(scores - scores.mean()) / (spread or 1.0),
            looks_in=scores > _between_clusters(scores),
            is_in=_coins(canaries),
        )

    def part(self, chosen: npt.ArrayLike) -> "_Guesses":
        rows = np.asarray(chosen)
        return _Guesses(strength=self.strength[rows], looks_in=self.looks_in[rows], is_in=self.is_in[rows])

    def __len__(self) -> int:
        return len(self.is_in)

    def count_right(self, share: float, rng: np.random.Generator) -> tuple[int, int]:
        """Returns right guesses and guesses; equal scores are taken in random order."""
        if share >= 1:
            return int((self.looks_in == self.is_in).sum()), len(self)
        first = np.lexsort((rng.random(len(self)), -self.strength))[: max(1, round(share * len(self)))]
        return int(self.is_in[first].sum()), len(first)

    def counts(self, threshold: float) -> tuple[int, int, int, int]:
        """Returns hits and canaries in, hits and canaries out, where a hit is a score above a threshold."""
        hit, n_in = self.strength > threshold, int(self.is_in.sum())
        return int((hit & self.is_in).sum()), n_in, int((hit & ~self.is_in).sum()), len(self) - n_in


def _between_clusters(scores: FloatVector) -> float:
    """Returns the threshold that leaves the least variance within the two sides (Otsu 1979)."""
    values = np.unique(scores)
    if len(values) < 2:
        return float(values[0])

    def within(threshold: float) -> float:
        sides = (scores[scores > threshold], scores[scores <= threshold])
        return sum(float(side.var()) * len(side) for side in sides)

    return float(min(values[:-1], key=within))


# --- epsilon --------------------------------------------------------------------------------------


def _bounds(
    attack: str, size: int, guesses: _Guesses, secrets: Secrets, claim: Claim, streams: Streams
) -> list[Finding]:
    whom = "one unit" if size == 1 else f"a group of {size} records"
    best, counted = _one_run(attack, size, guesses, secrets, claim.delta, 1 - LEVEL, streams)
    claimed = claim.epsilon.get(size)
    against = "no finite epsilon is claimed" if claimed is None else f"claimed: {claimed:g}"
    power = power_table(claim.delta, [len(guesses)])[0]
    n_in = int(guesses.is_in.sum())
    one_run = _finding(
        attack,
        f"epsilon of {whom}, lower bound (one run)",
        best,
        n_in=n_in,
        n_out=len(guesses) - n_in,
        detail=(
            f"adding or removing {whom}, at delta {claim.delta:g}, {LEVEL:.0%} confidence; {counted}; "
            f"{against}; an attack without one error could show {power.one_run:.1f} with {power.m} canaries"
        ),
    )
    return [one_run, _two_sided(attack, whom, guesses, claim, streams.get("canary halves", attack, size))]


def _one_run(
    attack: str, size: int, guesses: _Guesses, secrets: Secrets, delta: float, error: float, streams: Streams
) -> tuple[float, str]:
    """Returns the largest bound of all numbers of guesses, each at its part of the error, and its counts."""
    best, counted = 0.0, "nothing is refuted"
    for share in secrets.guess_shares:
        right, n_guessed = guesses.count_right(share, streams.get("canary ties", attack, size))
        level = 1 - error / len(secrets.guess_shares)
        bound = one_run_epsilon(len(guesses), n_guessed, right, delta, level)
        if bound > best:
            best, counted = bound, f"{right} of {n_guessed} guesses right"
    return best, counted


def _refutes(
    shown: Finding,
    size: int,
    guesses: _Guesses,
    n_groups: int,
    secrets: Secrets,
    claim: Claim,
    streams: Streams,
) -> bool:
    """Tells whether the claim is refuted: at the error of a verdict, shared out among the groups.

    The bound that is shown has 95 % confidence; one audit in twenty would exceed a claim that is exact.
    """
    claimed = claim.epsilon.get(size)
    if claimed is None or (shown.value or 0.0) <= claimed:
        return False
    error = ALPHA / n_groups
    return _one_run(ALL_KINDS, size, guesses, secrets, claim.delta, error, streams)[0] > claimed


def _two_sided(attack: str, whom: str, guesses: _Guesses, claim: Claim, rng: np.random.Generator) -> Finding:
    """The threshold is chosen on one half of the canaries and tested on the other."""
    order = rng.permutation(len(guesses))
    tried, tested = guesses.part(order[: len(order) // 2]), guesses.part(order[len(order) // 2 :])
    candidates = np.unique(np.quantile(tried.strength, np.linspace(0.05, 0.95, 19)))
    threshold = max(
        candidates.tolist(), key=lambda value: two_sided_epsilon(*tried.counts(value), claim.delta)
    )
    _, n_in, _, n_out = tested.counts(threshold)
    return _finding(
        attack,
        f"epsilon of {whom}, lower bound (two-sided)",
        two_sided_epsilon(*tested.counts(threshold), claim.delta),
        n_in=n_in,
        n_out=n_out,
        detail=(
            f"at delta {claim.delta:g}, {LEVEL:.0%} confidence; threshold chosen on the other half; it takes "
            "the canaries for independent trials, which one run does not ensure: the one-run bound does not"
        ),
    )


# --- attribute inference --------------------------------------------------------------------------


def _attribute(facts: Sequence[Canary], synthetic: Sequence[str], rng: np.random.Generator) -> list[Finding]:
    """Guesses each fact's hidden value among its choices: the one whose name is likest to a released word."""
    right = _guesses_right(facts, synthetic, rng)
    blind = _guesses_right(facts, (), rng)
    is_in = _coins(facts)
    n_in, n_out = int(is_in.sum()), int((~is_in).sum())
    if min(n_in, n_out) < _MIN_SIDE:
        return []
    (low, high), (none_low, none_high) = (
        clopper_pearson(int(values.sum()), n_in) for values in (right[is_in], blind[is_in])
    )
    without = f"{blind[is_in].mean():.3f} [{none_low:.3f}, {none_high:.3f}]"
    return [
        Finding(
            family="attribute",
            attack="fact_value",
            statistic="share of hidden values guessed",
            value=float(right[is_in].mean()),
            low=low,
            high=high,
            control=float(right[~is_in].mean()),
            p_value=permutation_p(right[is_in], right[~is_in], rng=rng),
            n_members=n_in,
            n_nonmembers=n_out,
            decides=True,
            detail=(
                "of canaries in; control: the same guess for canaries left out; a guesser without the "
                f"release is right for {without}"
            ),
        )
    ]


def _guesses_right(
    facts: Sequence[Canary], synthetic: Sequence[str], rng: np.random.Generator
) -> FloatVector:
    choices = [canary.fact.choices for canary in facts if canary.fact is not None]
    values = [canary.fact.value for canary in facts if canary.fact is not None]
    names = [name for group in choices for name in group]
    likest = likeness(names, synthetic)
    right, start = np.zeros(len(facts)), 0
    for i, group in enumerate(choices):
        scores = likest[start : start + len(group)]
        start += len(group)
        # Blind where the release says nothing: ties are broken at random.
        guess = group[int(np.lexsort((rng.random(len(group)), scores))[-1])]
        right[i] = guess == values[i]
    return right


def _coins(canaries: Sequence[Canary]) -> BoolArray:
    return np.array([canary.is_in for canary in canaries], dtype=bool)


def _finding(
    attack: str,
    statistic: str,
    value: float | None,
    *,
    n_in: int,
    n_out: int,
    detail: str,
) -> Finding:
    return Finding(
        family="canary",
        attack=attack,
        statistic=statistic,
        value=value,
        n_members=n_in,
        n_nonmembers=n_out,
        detail=detail,
    )
