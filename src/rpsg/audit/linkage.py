"""Linkage: can a released text be traced to the unit whose record it was written from.

The auditor knows whose that is. The attacker has all known texts, members and non-members, and ranks their
units by likeness to the released text.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rpsg.audit.estimators import clopper_pearson, permutation_p
from rpsg.audit.events import BoolArray, IntArray, Units
from rpsg.audit.finding import Finding, Game
from rpsg.audit.similarity import LsaEmbedder, Matrix, Vectors, cosine_blocks, fit_tfidf
from rpsg.errors import ConfigError, DataError
from rpsg.rng import Streams
from rpsg.types import Embedder

TOP = (1, 5, 10)
_N_PERMUTATIONS = 9999
_HOW = {
    "tfidf": "TF-IDF",
    "lsa": "latent semantic analysis of the known texts",
}


def linkage(
    game: Game, pairs: Mapping[int, int], *, generator: str, embedders: Sequence[Embedder] = ()
) -> tuple[Finding, ...]:
    """Ranks the unit that each released text was written from among all units.

    By TF-IDF, by latent semantic analysis of the known texts, and by further embedders. A unit is as like a
    text as the most like of its texts. Units equally like count as more like: ties never help.

    The test deals the seeds out anew among the texts 9,999 times, each among those of its own labels: that a
    text is of its seed's label is released beside it. A unit that is likely to come first anyway, such as the
    author of a typical text, does so in every deal; what a text says of its own seed counts in one only.

    Args:
        game: the texts.
        pairs: row of a released text to row of the member text that it was written from.
        generator: name of the embedder that the generator chose its texts by: the attack must not use it.
        embedders: further ones, of other models.

    Returns:
        By each embedder: the geometric mean of the ranks of the seeds' units, with that of dealt seeds as
        control; how often the seed's unit is among the first 1, 5 and 10, with chance as control and the best
        rank of any non-member beside it; and how often a member is nearest. Nothing without pairs. The mean
        rank by TF-IDF decides.

    Raises:
        ConfigError: an embedder is the generator's.
        DataError: a pair names a row that does not exist, or units do not fit the texts.
    """
    for embedder in embedders:
        refuse_generator(embedder.name, generator)
    if not pairs:
        return ()
    _check(pairs, game)
    units = Units.of(game)
    known = (*game.members, *game.nonmembers)
    rows = sorted(pairs)
    members = [pairs[row] for row in rows]
    seeds = _Seeds.of(game, members, units)
    texts = [game.synthetic[row] for row in rows]

    words = fit_tfidf(known)
    links = _rank("tfidf", words.transform(texts), words.transform(known), units, seeds)
    findings = _report(links, units, game.seed)
    for embedder in (LsaEmbedder.fit(known, seed=game.seed), *embedders):
        links = _rank(embedder.name, embedder.embed(texts), embedder.embed(known), units, seeds)
        # They ask the question of TF-IDF again, so they do not decide once more.
        findings += [replace(found, decides=False) for found in _report(links, units, game.seed)]
    return tuple(findings)


def pair_rows(seeds: Mapping[str, str], text_ids: Sequence[str], record_ids: Sequence[str]) -> dict[int, int]:
    """Returns row of a released text to row of its member text, for texts and records that are both there.

    Args:
        seeds: text id to record id (`rpsg.privacy.seeds.read_seeds`).
        text_ids: of the released texts, in the order of the game's.
        record_ids: of the member texts, likewise.
    """
    places = {record_id: row for row, record_id in enumerate(record_ids)}
    return {
        row: places[seeds[text_id]]
        for row, text_id in enumerate(text_ids)
        if text_id in seeds and seeds[text_id] in places
    }


def other_models(embedders: Sequence[Embedder], generator: str) -> tuple[Embedder, ...]:
    """Returns the embedders of other models than the generator's."""
    return tuple(item for item in embedders if _model(item.name) != _model(generator))


def refuse_generator(name: str, generator: str) -> None:
    """Refuses an embedder that the generator used, whatever owner or kind stands before its name.

    Raises:
        ConfigError: it is the same.
    """
    if _model(name) == _model(generator):
        raise ConfigError(
            f"an audit cannot link texts by {name!r}: the generator chose them by that embedder; name another"
        )


def _model(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", re.split(r"[/:]", name.casefold())[-1])


def _check(pairs: Mapping[int, int], game: Game) -> None:
    n_texts, n_members = len(game.synthetic), len(game.members)
    bad = sum(not (0 <= i < n_texts and 0 <= j < n_members) for i, j in pairs.items())
    if bad:
        raise DataError(
            f"{bad} of {len(pairs)} pairs name a row that does not exist: there are {n_texts} released texts "
            f"and {n_members} members; rows count from 0"
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Seeds:
    """What released texts were written from.

    Attributes:
        units: the unit of each text's seed, shape (n_texts,).
        different: these units, each once, rising.
        groups: of each of these a number that says which labels the release gives it.
    """

    units: IntArray
    different: IntArray
    groups: IntArray

    @classmethod
    def of(cls, game: Game, members: Sequence[int], units: Units) -> "_Seeds":
        own = units.members[list(members)]
        different, first = np.unique(own, return_index=True)
        labels = [game.member_labels[row] if game.member_labels else "" for row in members]
        groups = np.unique(labels, return_inverse=True)[1].astype(np.int64)[first]
        return cls(units=own, different=different, groups=groups)

    def deal(self, rng: np.random.Generator) -> IntArray:
        """Deals the seeds out anew, each to the place of one of its group."""
        places, shuffled = np.argsort(self.groups, kind="stable"), rng.permutation(len(self.groups))
        dealt = np.empty_like(places)
        dealt[places] = shuffled[np.argsort(self.groups[shuffled], kind="stable")]
        return dealt


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Links:
    """Ranks by one embedder.

    Attributes:
        name: of the embedder.
        seeds: what each text was written from.
        ranks: rank of every unit that is a seed, 1 is the most like; shape (n_texts, n_seeds).
        nearest: the unit most like each text; -1 where two are, shape (n_texts,).
        outsiders: best rank of a non-member unit, shape (n_texts,).
    """

    name: str
    seeds: _Seeds
    ranks: npt.NDArray[np.int32]
    nearest: IntArray
    outsiders: IntArray


def _rank(name: str, texts: Vectors, known: Vectors, units: Units, seeds: _Seeds) -> _Links:
    ranks, nearest, outsiders = [], [], []
    for _, cosines in cosine_blocks(texts, known):
        likeness = _by_unit(cosines, units.all)
        ranks.append(_ranks_of(likeness, likeness[:, seeds.different]).astype(np.int32))
        top = likeness.max(axis=1, keepdims=True)
        nearest.append(np.where((likeness == top).sum(axis=1) == 1, likeness.argmax(axis=1), -1))
        best = likeness[:, units.n_members :].max(axis=1, initial=-np.inf)
        outsiders.append(1 + (likeness > best[:, None]).sum(axis=1))
    return _Links(
        name=name,
        seeds=seeds,
        ranks=np.concatenate(ranks),
        nearest=np.concatenate(nearest),
        outsiders=np.concatenate(outsiders),
    )


def _by_unit(cosines: Matrix, units: IntArray) -> Matrix:
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.diff(units[order], prepend=-1))
    likeness: Matrix = np.maximum.reduceat(cosines[:, order], starts, axis=1)
    return likeness


def _ranks_of(likeness: Matrix, values: Matrix) -> IntArray:
    """Returns how many units are at least as like as each value."""
    rising = np.sort(likeness, axis=1)
    below = [np.searchsorted(row, wanted, side="left") for row, wanted in zip(rising, values, strict=True)]
    ranks: IntArray = likeness.shape[1] - np.array(below, dtype=np.int64)
    return ranks


def _report(links: _Links, units: Units, seed: int) -> list[Finding]:
    n, n_units = len(links.seeds.units), units.n_members + units.n_nonmembers
    columns = np.searchsorted(links.seeds.different, links.seeds.units)
    attack = f"linkage_{re.sub(r'[^a-z0-9]+', '_', links.name.casefold()).strip('_')}"
    findings = [_mean_rank(links, columns, units, seed, attack)]
    for k in TOP:
        found = links.ranks <= k
        hits = int(found[np.arange(n), columns].sum())
        low, high = clopper_pearson(hits, n)
        outsiders = float((links.outsiders <= k).mean())
        findings.append(
            Finding(
                family="linkage",
                attack=attack,
                statistic=f"share of texts linked to their seed, top {k}",
                value=hits / n,
                low=low,
                high=high,
                control=min(1.0, k / n_units),
                p_value=_deal_p(found, columns, links.seeds, Streams(seed).get("linkage", links.name, k)),
                n_members=units.n_members,
                n_nonmembers=units.n_nonmembers,
                detail=(
                    f"{hits} of {n} texts, by {_HOW.get(links.name, links.name)}; control: chance. A "
                    f"non-member is among the first {k} for {outsiders:.1%} of texts. Seeds dealt anew 9,999 "
                    "times."
                ),
            )
        )
    return [*findings, _nearest(links, units, seed, attack)]


def _mean_rank(links: _Links, columns: IntArray, units: Units, seed: int, attack: str) -> Finding:
    # Logarithms: from rank 100 to rank 10 is as much news as from 10 to 1.
    logs = np.log(links.ranks.astype(np.float64))
    rows, n = np.arange(len(columns)), len(columns)
    own = logs[rows, columns]
    rng = Streams(seed).get("linkage", links.name, "mean rank")
    dealt = np.array([logs[rows, links.seeds.deal(rng)[columns]].mean() for _ in range(_N_PERMUTATIONS)])
    mean = float(own.mean())
    half = 1.96 * float(own.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    n_units = units.n_members + units.n_nonmembers
    return Finding(
        family="linkage",
        attack=attack,
        statistic="geometric mean of the ranks of the texts' seeds",
        value=math.exp(mean),
        low=max(1.0, math.exp(mean - half)),
        high=min(float(n_units), math.exp(min(mean + half, math.log(n_units)))),
        control=math.exp(float(dealt.mean())),
        # Sums in another order may differ in the last digit.
        p_value=(1 + int((dealt <= mean + 1e-9).sum())) / (1 + _N_PERMUTATIONS),
        n_members=units.n_members,
        n_nonmembers=units.n_nonmembers,
        decides=True,
        detail=(
            f"{n} texts, rank among {n_units} units by {_HOW.get(links.name, links.name)}; 1 is the most "
            "like. Control and p-value: seeds dealt anew 9,999 times, among those of equal labels."
        ),
    )


def _deal_p(found: BoolArray, columns: IntArray, seeds: _Seeds, rng: np.random.Generator) -> float:
    observed = int(found[np.arange(len(columns)), columns].sum())
    rows, hit_columns = np.nonzero(found)
    # Few of the pairs are hits: a deal counts those of them that it makes.
    reached = 0
    for _ in range(_N_PERMUTATIONS):
        dealt = seeds.deal(rng)[columns]
        reached += int((dealt[rows] == hit_columns).sum() >= observed)
    return (1 + reached) / (1 + _N_PERMUTATIONS)


def _nearest(links: _Links, units: Units, seed: int, attack: str) -> Finding:
    clear = links.nearest[links.nearest >= 0]
    times = np.bincount(clear, minlength=units.n_members + units.n_nonmembers)
    n, hits = len(clear), int(times[: units.n_members].sum())
    low, high = clopper_pearson(hits, n)
    members, nonmembers = times[: units.n_members], times[units.n_members :]
    rng = Streams(seed).get("linkage", links.name, "nearest")
    return Finding(
        family="linkage",
        attack=attack,
        statistic="share of texts whose nearest unit is a member",
        value=hits / n if n else None,
        low=low if n else None,
        high=high if n else None,
        control=units.n_members / len(times),
        p_value=permutation_p(members, nonmembers, rng=rng) if len(nonmembers) else None,
        n_members=units.n_members,
        n_nonmembers=units.n_nonmembers,
        detail=(
            f"{hits} of {n} texts with one nearest unit; control: share of members among the units. "
            "Mann-Whitney's statistic of how often each unit is nearest, labels permuted."
        ),
    )
