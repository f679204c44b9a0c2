"""Disclosures that are true, and those that only look like it: members against non-members.

A release that never saw a record may still seem to disclose it: people share words, and a language model
guesses. How often this happens to non-members says how much of what is found among members is a phantom.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rpsg.audit.events import BoolArray, EventCounts, IntArray, Units
from rpsg.audit.finding import Finding, Game
from rpsg.audit.lower_bounds import one_run_epsilon, two_sided_epsilon
from rpsg.audit.own import SYNTHETIC, KnownRuns
from rpsg.audit.similarity import cosine_blocks, fit_tfidf
from rpsg.rng import Streams

Split = Literal["fixed", "coins"]
# Fixed once, on releases made without the data: 150 abstracts share so much with one other in a hundred.
N_FIVE_WORD_RUNS = 5
N_RARE_WORDS = 3
MARGIN = 0.1
_RELATION = {
    "fixed": "the split has fixed sizes, so it bounds the epsilon of replacing one unit",
    "coins": "each unit was put in by its own fair coin, so it bounds the epsilon of adding or removing one",
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Predicate:
    attack: str
    meaning: str
    happened: BoolArray
    decides: bool


def disclosure(game: Game, *, delta: float = 1e-6, split: Split = "fixed") -> tuple[Finding, ...]:
    """Tests whether more happens to members than to non-members, by three predicates fixed in advance.

    A record is disclosed if some released text shares 5 different runs of 5 words with it that are its unit's
    own; or 3 different words that are; or is, among all known texts, most like it, by a margin of 0.1 in
    TF-IDF cosine over the texts of every other unit. "Own" means: in no public text and in no other unit's.

    Args:
        game: the texts.
        delta: of the claim that the lower bounds of epsilon are compared with.
        split: "fixed" if as many members as wanted were drawn, "coins" if each unit had a fair coin of its
            own. It decides which neighbouring relation the bounds are about.

    Returns:
        Of each predicate: the share of member units disclosed, against non-members; the estimated number of
        true disclosures, (p_T - p_H) N_T; the share of phantoms, p_H / p_T; two lower bounds of epsilon. The
        share by runs decides.

    Raises:
        DataError: units do not fit the texts.
    """
    known = KnownRuns.of(game)
    findings: list[Finding] = []
    for predicate in _predicates(game, known):
        counts = known.units.count(predicate.happened)
        findings += [
            _rate(predicate, counts),
            *_amounts(predicate, _comparable(known.units, predicate.happened, game.seed, split)),
            *_bounds(predicate, known.units, game.seed, delta=delta, split=split),
        ]
    return tuple(findings)


def _predicates(game: Game, known: KnownRuns) -> Iterator[_Predicate]:
    yield _Predicate(
        attack="disclosed_runs",
        meaning=f"{N_FIVE_WORD_RUNS} own runs of 5 words in one released text",
        happened=_shares(known, length=5, at_least=N_FIVE_WORD_RUNS),
        decides=True,
    )
    yield _Predicate(
        attack="disclosed_words",
        meaning=f"{N_RARE_WORDS} own words or numbers in one released text",
        happened=_shares(known, length=1, at_least=N_RARE_WORDS),
        decides=False,
    )
    yield _Predicate(
        attack="disclosed_links",
        meaning=f"a released text is most like it, by {MARGIN} in TF-IDF cosine",
        happened=_linked(game, known.units),
        decides=False,
    )


def _shares(known: KnownRuns, *, length: int, at_least: int) -> BoolArray:
    owners, runs = known.owners(length), known.runs
    here = np.flatnonzero((owners >= 0) & (runs.group == SYNTHETIC))
    # One row a different run of a released text.
    shown = np.unique(np.stack([owners[here], runs.text[here], runs.name(length)[here]]), axis=1)
    pairs, counts = np.unique(shown[:2], axis=1, return_counts=True)
    disclosed = np.unique(pairs[0, counts >= at_least])
    happened: BoolArray = np.isin(known.units.all, disclosed)
    return happened


def _linked(game: Game, units: Units) -> BoolArray:
    texts = (*game.members, *game.nonmembers)
    happened = np.zeros(len(texts), dtype=bool)
    if not texts or not game.synthetic:
        return happened
    words = fit_tfidf(texts)
    for _, cosines in cosine_blocks(words.transform(game.synthetic), words.transform(texts)):
        rows = np.arange(len(cosines))
        nearest = cosines.argmax(axis=1)
        best = cosines[rows, nearest]
        cosines[units.all[None, :] == units.all[nearest][:, None]] = 0.0
        happened[nearest[best - cosines.max(axis=1) >= MARGIN]] = True
    return happened


def _rate(predicate: _Predicate, counts: EventCounts) -> Finding:
    low, high = counts.member_interval
    return replace(
        _nothing_yet(predicate, counts),
        statistic="share of members disclosed",
        value=counts.member_rate,
        low=low,
        high=high,
        control=counts.nonmember_rate,
        p_value=counts.p_value(),
        decides=predicate.decides,
        detail=(
            f"Disclosed: {predicate.meaning}. {counts.members} members, {counts.nonmembers} non-members; "
            "Fisher's exact test over units, among those of as many texts."
        ),
    )


def _amounts(predicate: _Predicate, counts: EventCounts) -> tuple[Finding, ...]:
    members, nonmembers = counts.member_rate, counts.nonmember_rate
    if members is None or nonmembers is None:
        return ()
    (low_t, high_t), (low_h, high_h) = counts.member_interval, counts.nonmember_interval
    excess, n, base = members - nonmembers, counts.n_members, _nothing_yet(predicate, counts)
    return (
        replace(
            base,
            statistic="true disclosures, estimated",
            value=excess * n,
            # Newcombe (1998): the distances of each rate to its own ends, squared and added.
            low=(excess - math.hypot(members - low_t, high_h - nonmembers)) * n,
            high=(excess + math.hypot(high_t - members, nonmembers - low_h)) * n,
            detail=(
                "(p_T - p_H) N_T: members disclosed beyond what happens to non-members; where units differ "
                "in size, of pairs of one size. May be below 0."
            ),
        ),
        replace(
            base,
            statistic="share of phantoms among disclosures",
            value=min(1.0, nonmembers / members) if members else None,
            low=min(1.0, low_h / high_t) if members else None,
            high=min(1.0, high_h / low_t) if members else None,
            detail="p_H / p_T, at most 1; its interval is made of the ends of both, so it is too wide.",
        ),
    )


def _bounds(
    predicate: _Predicate, units: Units, seed: int, *, delta: float, split: Split
) -> Iterator[Finding]:
    base = _nothing_yet(predicate, units.count(predicate.happened))
    counts = _comparable(units, predicate.happened, seed, split)
    if not counts.n_members or not counts.n_nonmembers:
        return
    yield replace(
        base,
        statistic="lower bound of epsilon, from rates",
        value=two_sided_epsilon(
            counts.members, counts.n_members, counts.nonmembers, counts.n_nonmembers, delta
        ),
        detail=(
            f"ln((p_T,low - delta) / p_H,high) or its complement, at 95 %, delta {delta:g}; "
            f"{_RELATION[split]}. "
            "It takes units for independent trials, which in one release they are not quite."
        ),
    )
    coins, guesses, right = _guesses(units, predicate.happened, seed, split)
    yield replace(
        base,
        statistic="lower bound of epsilon, one run",
        value=one_run_epsilon(coins, guesses, right, delta) if guesses else 0.0,
        detail=(
            f"{right} of {guesses} guesses right, {coins} coins, at 95 %, delta {delta:g}; "
            f"{_RELATION[split]}. "
            "Units of one release may depend on each other (Steinke et al. 2023)."
        ),
    )


def _guesses(units: Units, happened: BoolArray, seed: int, split: Split) -> tuple[int, int, int]:
    """Returns coins, guesses made and guesses right.

    With independent coins every unit with the event is guessed to be in. With a split of fixed size, members
    and non-members of as many texts are matched at random: given the pairs, which of the two is in is a fair
    coin of its own, whose two sides differ by replacing one unit. A pair is guessed where one has the event.
    """
    if split == "coins":
        has_event = _with_event(units, happened)
        return len(has_event), int(has_event.sum()), int(has_event[: units.n_members].sum())
    inside, outside = _pairs(units, happened, seed)
    guessed: IntArray = np.flatnonzero(inside != outside)
    return len(inside), len(guessed), int(inside[guessed].sum())


def _with_event(units: Units, happened: BoolArray) -> BoolArray:
    has_event = np.zeros(units.n_members + units.n_nonmembers, dtype=bool)
    has_event[units.all[happened]] = True
    return has_event


def _pairs(units: Units, happened: BoolArray, seed: int) -> tuple[BoolArray, BoolArray]:
    """Returns whether the member and the non-member of each random pair of as many texts has the event."""
    has_event, sizes = _with_event(units, happened), units.sizes
    is_member = np.arange(len(sizes)) < units.n_members
    rng = Streams(seed).get("disclosure", "pairs")
    sides: tuple[list[BoolArray], list[BoolArray]] = ([], [])
    for size in np.unique(sizes):
        alike = [has_event[(sizes == size) & side] for side in (is_member, ~is_member)]
        n = min(map(len, alike))
        for found, values in zip(sides, alike, strict=True):
            found.append(rng.permutation(values)[:n])
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def _comparable(units: Units, happened: BoolArray, seed: int, split: Split) -> EventCounts:
    """Counts as many units of each size on both sides: large units are no trials like small ones."""
    counts = units.count(happened)
    if len(counts.strata) <= 1 or split == "coins":
        return counts
    inside, outside = _pairs(units, happened, seed)
    return EventCounts(
        members=int(inside.sum()),
        nonmembers=int(outside.sum()),
        n_members=len(inside),
        n_nonmembers=len(outside),
    )


def _nothing_yet(predicate: _Predicate, counts: EventCounts) -> Finding:
    return Finding(
        family="disclosure",
        attack=predicate.attack,
        statistic="",
        value=None,
        n_members=counts.n_members,
        n_nonmembers=counts.n_nonmembers,
    )
