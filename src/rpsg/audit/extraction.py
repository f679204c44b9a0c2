"""Extraction: of how many private texts and details does the release of each model hold a part.

The rate of the RPSG paper (2604.07486, figure 3) is the share of released texts that hold a private entity.
Here an entity is private only if one unit and no public text has it, the audit's own detector finds it,
and the same rate for the details of non-members shows how much of it is chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rpsg.audit.details import Detail
from rpsg.audit.estimators import clopper_pearson
from rpsg.audit.events import EventCounts
from rpsg.audit.finding import Finding, Game
from rpsg.audit.own import PUBLIC, SYNTHETIC, KnownRuns
from rpsg.audit.private_details import DetailFinder, PrivateDetails

# A text is extracted if so much of it stands in runs of so many words that the release shares.
RUN = 8
COVERED = 0.5


def extraction(game: Game, releases: Mapping[str, Sequence[str]] | None = None) -> tuple[Finding, ...]:
    """Measures what each model's release holds of private texts and details.

    Args:
        game: the texts; its members, non-members and public texts are compared with every release.
        releases: name of a model to the texts that it wrote; without any, all of the game's as one.

    Returns:
        Of each release: the share of its texts that hold a member's private detail, the share of member units
        with a text of which at least half the words stand in shared runs of 8 words, and the share of the
        members' private details that are there; each with non-members as control. None decides: replay and
        copying test the same.

    Raises:
        DataError: units do not fit the texts.
    """
    details = PrivateDetails.of(game)
    findings: list[Finding] = []
    for model, texts in (releases or {"": game.synthetic}).items():
        part = replace(game, synthetic=tuple(texts))
        suffix = f", {model}" if model else ""
        findings += [*_details(part, details, suffix), _texts(part, suffix)]
    return tuple(findings)


def _details(game: Game, details: PrivateDetails, suffix: str) -> tuple[Finding, Finding]:
    sides = (details.of_members(), details.of_nonmembers())
    finder = DetailFinder(sides[0] | sides[1])
    found = [finder.find(text) for text in game.synthetic]
    n_texts, n_holding = len(found), [sum(bool(text & side) for text in found) for side in sides]
    shown: set[Detail] = set().union(*found)
    counts = EventCounts(
        members=len(shown & sides[0]),
        nonmembers=len(shown & sides[1]),
        n_members=len(sides[0]),
        n_nonmembers=len(sides[1]),
    )
    low, high = clopper_pearson(n_holding[0], n_texts)
    holding = Finding(
        family="extraction",
        attack="extracted_details",
        statistic=f"share of released texts with a member's private detail{suffix}",
        value=n_holding[0] / n_texts if n_texts else None,
        low=low if n_texts else None,
        high=high if n_texts else None,
        control=n_holding[1] / n_texts if n_texts else None,
        n_members=details.units.n_members,
        n_nonmembers=details.units.n_nonmembers,
        detail=f"{n_holding[0]} of {n_texts} texts; control: a non-member's detail. Amounts left out.",
    )
    return holding, _rate(
        counts,
        attack="extracted_details",
        statistic=f"share of the members' private details that are released{suffix}",
        detail="Word for word; numbers are of details; control: those of non-members. Amounts left out.",
    )


def _texts(game: Game, suffix: str) -> Finding:
    known = KnownRuns.of(game)
    shared = known.runs.longest_in(SYNTHETIC, of=known.runs.group < PUBLIC)
    size = len(shared)
    # A word is covered if a run that began no more than its length before it reaches over it.
    reach = np.where(shared >= RUN, np.arange(size) + shared, 0)
    covered = np.maximum.accumulate(reach) > np.arange(size)
    n = known.runs.n_texts
    words = np.bincount(known.runs.text, minlength=n)
    shares = np.bincount(known.runs.text, weights=covered, minlength=n) / np.maximum(words, 1)
    extracted = shares[: len(known.units.all)] >= COVERED
    return _rate(
        known.units.count(extracted),
        attack="extracted_texts",
        statistic=f"share of members of whom half a text is released{suffix}",
        detail=f"At least {COVERED:.0%} of its words stand in runs of {RUN} words that the release has too.",
    )


def _rate(counts: EventCounts, *, attack: str, statistic: str, detail: str) -> Finding:
    low, high = counts.member_interval
    return Finding(
        family="extraction",
        attack=attack,
        statistic=statistic,
        value=counts.member_rate,
        low=low if counts.n_members else None,
        high=high if counts.n_members else None,
        control=counts.nonmember_rate,
        n_members=counts.n_members,
        n_nonmembers=counts.n_nonmembers,
        detail=detail,
    )
