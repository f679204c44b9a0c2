"""Distances to known texts, as description: they do not measure privacy.

A release whose texts are all far from every member can still disclose any of them, and one that is near may
disclose nobody (Ganev & De Cristofaro 2312.05114; "The DCR delusion", 2505.01524).
"""

import numpy as np
import numpy.typing as npt

from rpsg.audit.finding import Finding, Game
from rpsg.audit.similarity import Vectors, cosine_blocks, fit_tfidf
from rpsg.rng import Streams
from rpsg.types import Embedder

NOTICE = (
    "Description only: this distance does not measure privacy, and no value of it shows that nothing leaked."
)
Floats = npt.NDArray[np.float64]
_SHARES = ((0.5, "median"), (0.05, "5th percentile"))


def description(game: Game, *, embedder: Embedder | None = None) -> tuple[Finding, ...]:
    """Describes how near released texts are to members, beside how near they are to non-members.

    Args:
        game: the texts.
        embedder: cosine distances of its vectors; of TF-IDF without one.

    Returns:
        Median and 5th percentile over released texts of the distance to the closest record (DCR), and of the
        nearest neighbour distance ratio (NNDR: the distance to the closest over that to the second closest),
        to members and, as control, to as many non-members. Intervals are those of order statistics, exact
        for independent texts. Nothing where a side has fewer than two texts.
    """
    size = min(len(game.members), len(game.nonmembers))
    if size < 2 or not game.synthetic:
        return ()
    known = (*game.members, *game.nonmembers)
    words = fit_tfidf(known) if embedder is None else None
    released, texts = (
        (words.transform(part) if words is not None else embedder.embed(part))  # type: ignore[union-attr]
        for part in (game.synthetic, known)
    )
    n = len(game.members)
    rng = Streams(game.seed).get("description")
    # Nearest distances shrink with the number of records: both sides give as many.
    inside = np.sort(rng.permutation(n)[:size])
    outside = np.sort(n + rng.permutation(len(game.nonmembers))[:size])
    members, nonmembers = _nearest(released, texts[inside]), _nearest(released, texts[outside])
    return tuple(
        _finding(name, share, what, members[name], nonmembers[name], size)
        for name in ("dcr", "nndr")
        for share, what in _SHARES
    )


def _nearest(released: Vectors, known: Vectors) -> dict[str, Floats]:
    closest, ratio = [], []
    for _, cosines in cosine_blocks(released, known):
        # Equal vectors have a cosine of 1 but for rounding.
        distances = np.clip(
            1 - np.round(np.partition(cosines, -2, axis=1)[:, -2:].astype(np.float64), 6), 0, 2
        )
        second, first = distances[:, 0], distances[:, 1]
        closest.append(first)
        # Two records equal to the text: none of them is closer.
        ratio.append(np.where(second > 0, first / np.where(second > 0, second, 1), 1.0))
    return {"dcr": np.concatenate(closest), "nndr": np.concatenate(ratio)}


def _finding(name: str, share: float, what: str, members: Floats, nonmembers: Floats, size: int) -> Finding:
    from scipy.stats import binom

    n, rising = len(members), np.sort(members)
    low, high = (int(binom.ppf(tail, n, share)) for tail in (0.025, 0.975))
    meaning = "distance to the closest record" if name == "dcr" else "nearest neighbour distance ratio"
    return Finding(
        family="description",
        attack=name,
        statistic=f"{what} of the {meaning}",
        value=float(np.quantile(members, share)),
        low=float(rising[low]),
        high=float(rising[min(high, n - 1)]),
        control=float(np.quantile(nonmembers, share)),
        n_members=size,
        n_nonmembers=size,
        detail=f"Cosine distance, {n} released texts; control: to as many non-members. {NOTICE}",
    )
