"""Aggregation: do many released texts, or two releases of one data set, tell more than the best one."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rpsg.audit.estimators import auc, auc_interval
from rpsg.audit.events import Units
from rpsg.audit.finding import Finding, Game
from rpsg.audit.similarity import Matrix, Vectors, cosine_blocks, fit_tfidf
from rpsg.rng import Streams
from rpsg.types import Embedder

Floats = npt.NDArray[np.float64]
TOP = (5, 20)
_N_RESAMPLES = 500
_BEST = "the most like released text"


def aggregation(
    game: Game, *, embedder: Embedder | None = None, second: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """Compares membership scores from one released text with scores from all of them together.

    A unit's score is the likeness of the text of its own that scores highest: to the released text most like
    it; the mean to the 5 and to the 20 most like; the mean to all. With a second release of the same data:
    the best of both, and the mean of the best of each.

    Args:
        game: the texts.
        embedder: measures likeness; by TF-IDF without one.
        second: texts of another release made from the same members.

    Returns:
        The AUC by the best single text, that by each way of pooling, and the AUC gained by it, with the
        interval of a paired bootstrap over units. Nothing where a side is empty. None decides.

    Raises:
        DataError: units do not fit the texts.
    """
    units = Units.of(game)
    if not units.n_members or not units.n_nonmembers or not game.synthetic:
        return ()
    known = (*game.members, *game.nonmembers)
    embed = _embed_with(embedder, known)
    vectors = embed(known)
    scores = _scores(vectors, embed(game.synthetic))
    if second:
        other = _scores(vectors, embed(second))[_BEST]
        scores["the most like text of two releases"] = np.maximum(scores[_BEST], other)
        scores["the mean of the most like text of each of two releases"] = (scores[_BEST] + other) / 2
    by_unit = {name: _highest(values, units) for name, values in scores.items()}
    best = by_unit.pop(_BEST)
    n = units.n_members
    findings = [_auc_finding(_BEST, best, n)]
    for name, values in by_unit.items():
        rng = Streams(game.seed).get("aggregation", name)
        findings += [_auc_finding(name, values, n), _gain_finding(name, values, best, n, rng)]
    return tuple(findings)


def _embed_with(embedder: Embedder | None, known: Sequence[str]) -> Callable[[Sequence[str]], Vectors]:
    return embedder.embed if embedder is not None else fit_tfidf(known).transform


def _scores(known: Vectors, released: Vectors) -> dict[str, Floats]:
    parts: dict[str, list[Matrix]] = {}
    for _, cosines in cosine_blocks(known, released):
        cosines.sort(axis=1)
        parts.setdefault(_BEST, []).append(cosines[:, -1])
        for k in TOP:
            parts.setdefault(f"the mean of the {k} most like", []).append(cosines[:, -k:].mean(axis=1))
        parts.setdefault("the mean of all", []).append(cosines.mean(axis=1))
    return {name: np.concatenate(values).astype(np.float64) for name, values in parts.items()}


def _highest(values: Floats, units: Units) -> Floats:
    highest = np.full(units.n_members + units.n_nonmembers, -np.inf)
    np.maximum.at(highest, units.all, values)
    return highest


def _auc_finding(name: str, values: Floats, n_members: int) -> Finding:
    members, nonmembers = values[:n_members], values[n_members:]
    low, high = auc_interval(members, nonmembers)
    return Finding(
        family="aggregation",
        attack="pooled_texts",
        statistic=f"AUC by {name}",
        value=auc(members, nonmembers),
        low=low,
        high=high,
        control=0.5,
        n_members=n_members,
        n_nonmembers=len(nonmembers),
        detail="Score of a unit: likeness of its texts to released texts; control: a guess.",
    )


def _gain_finding(
    name: str, values: Floats, best: Floats, n_members: int, rng: np.random.Generator
) -> Finding:
    n = len(values)

    def gain(rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> float:
        return auc(values[rows], values[others]) - auc(best[rows], best[others])

    everyone = np.arange(n)
    drawn = [
        gain(
            rng.integers(0, n_members, size=n_members),
            rng.integers(n_members, n, size=n - n_members),
        )
        for _ in range(_N_RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Finding(
        family="aggregation",
        attack="pooled_texts",
        statistic=f"AUC gained by {name}",
        value=gain(everyone[:n_members], everyone[n_members:]),
        low=float(low),
        high=float(high),
        control=0.0,
        n_members=n_members,
        n_nonmembers=n - n_members,
        detail=f"Over {_BEST}. Paired bootstrap over units, {_N_RESAMPLES} resamples.",
    )
