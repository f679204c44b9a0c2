"""Copying: which runs of words does the release share with the members, and with nobody else.

Words are compared without case, punctuation and layout.
"""

from dataclasses import dataclass

import numpy as np

from rpsg.audit.estimators import clopper_pearson
from rpsg.audit.events import BoolArray, IntArray
from rpsg.audit.finding import Finding, Game
from rpsg.audit.own import MEMBERS, NONMEMBERS, PUBLIC, SYNTHETIC, KnownRuns
from rpsg.audit.verdict import ALPHA
from rpsg.audit.wordruns import in_group

# Of runs so long the share is reported.
RUN = 8
# The test is of runs so long: fixed in advance, the length by which training texts are told from test texts
# (Brown et al. 2020). Of 1,000 abstracts, 7 share eight words in a row with one of 150 others and with no
# third text; thirteen, none.
TESTED_RUN = 13
# So many words of one person's text, and of no other known text, are a leak by themselves, unless
# non-members' come back as well.
VERBATIM = 30
VERBATIM_RUNS = "verbatim_runs"
_DETAIL = (
    "Own means: in texts of one unit only and in no public text. Words without case and punctuation. "
    "Fisher's exact test over units, among those of as many texts."
)


def copying(game: Game) -> tuple[Finding, ...]:
    """Compares the word runs of a release with those of members and non-members.

    Returns:
        The share of units of whom the release has an own run of 13 words (it decides); the number of member
        units of whom it has one of 30 words (a leak by itself); the longest run shared with a member; the
        share of the release's 8-word runs that occur in members. Each with non-members as control.

    Raises:
        DataError: units do not fit the texts.
    """
    known = KnownRuns.of(game)
    return (
        _own_runs(known),
        _verbatim(known),
        _longest(known),
        _shared_runs(known, len(game.members), len(game.nonmembers)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateCopies:
    """Which texts were copied; for a file in `private/`, never for a report.

    Attributes:
        members: row numbers of member texts with an own run of 30 words in the release.
        synthetic: row numbers of the released texts that have such a run.
    """

    members: tuple[int, ...]
    synthetic: tuple[int, ...]

    def __repr__(self) -> str:
        return f"PrivateCopies(<{len(self.members)} texts>)"


def find_copies(game: Game) -> PrivateCopies:
    """Returns which member texts the release has 30 words in a row of, that no other known text has.

    Raises:
        DataError: units do not fit the texts.
    """
    known = KnownRuns.of(game)
    marked = _of_members(known, known.owners(VERBATIM, mostly_own=True))
    texts = known.runs.text
    return PrivateCopies(
        members=tuple(np.unique(texts[marked & (known.runs.group == MEMBERS)]).tolist()),
        synthetic=tuple(
            (np.unique(texts[marked & (known.runs.group == SYNTHETIC)]) - known.n_known).tolist()
        ),
    )


def longest_shared_runs(game: Game) -> IntArray:
    """Returns the words of the longest run that each released text shares with a member.

    Returns:
        Shape (n_synthetic,).
    """
    known = KnownRuns.of(game)
    return _longest_per_text(known, MEMBERS)


def _own_runs(known: KnownRuns) -> Finding:
    counts = known.units.count(known.texts_with(known.owners(TESTED_RUN) >= 0))
    low, high = counts.member_interval
    return Finding(
        family="copying",
        attack="copied_runs",
        statistic=f"share of members with an own run of {TESTED_RUN} words in the release",
        value=counts.member_rate,
        low=low,
        high=high,
        control=counts.nonmember_rate,
        p_value=counts.p_value(),
        n_members=counts.n_members,
        n_nonmembers=counts.n_nonmembers,
        decides=True,
        detail=f"{counts.members} members, {counts.nonmembers} non-members. {_DETAIL}",
    )


def _verbatim(known: KnownRuns) -> Finding:
    owners = known.owners(VERBATIM, mostly_own=True)
    counts = known.units.count(known.texts_with(owners >= 0))
    in_release = np.unique(known.runs.text[_of_members(known, owners) & (known.runs.group == SYNTHETIC)])
    p_value = counts.p_value()
    # Where those of non-members come back as well, they may come from elsewhere: then the test decides.
    is_leak = counts.members > 0 and (counts.nonmembers == 0 or (p_value is not None and p_value < ALPHA))
    return Finding(
        family="copying",
        attack=VERBATIM_RUNS,
        statistic=f"members with an own run of {VERBATIM} words in the release",
        value=float(counts.members),
        control=float(counts.nonmembers),
        p_value=p_value,
        n_members=counts.n_members,
        n_nonmembers=counts.n_nonmembers,
        is_leak=is_leak,
        detail=(
            f"{len(in_release)} released texts hold one{': a leak by itself' if is_leak else ''}. Half of "
            f"its words stand in no phrase of eight that others have. {_DETAIL}"
        ),
    )


def _of_members(known: KnownRuns, owners: IntArray) -> BoolArray:
    marked: BoolArray = (owners >= 0) & (owners < known.units.n_members)
    return marked


def _longest(known: KnownRuns) -> Finding:
    members, nonmembers = (_longest_per_text(known, group) for group in (MEMBERS, NONMEMBERS))
    found = len(members) > 0
    return Finding(
        family="copying",
        attack="longest_run",
        statistic="words of the longest run shared with a member",
        value=float(members.max()) if found else None,
        control=float(nonmembers.max()) if found and known.units.n_nonmembers else None,
        n_members=known.units.n_members,
        n_nonmembers=known.units.n_nonmembers,
        detail=(
            "Set phrases included. Median over released texts: "
            f"{np.median(members):.0f} words with members, {np.median(nonmembers):.0f} with non-members."
            if found
            else "there is no released text"
        ),
    )


def _longest_per_text(known: KnownRuns, group: int) -> IntArray:
    released = known.runs.group == SYNTHETIC
    longest = known.runs.longest_in(group, of=released)
    first = known.n_known
    best = np.zeros(known.runs.n_texts - first, dtype=np.int64)
    np.maximum.at(best, known.runs.text[released] - first, longest[released])
    return best


def _shared_runs(known: KnownRuns, n_members: int, n_nonmembers: int) -> Finding:
    named, group = known.runs.name(RUN), known.runs.group
    released = (group == SYNTHETIC) & (named >= 0)
    n = int(released.sum())
    shared = [int((in_group(named, group, side) & released).sum()) for side in (MEMBERS, NONMEMBERS)]
    in_public = int((in_group(named, group, PUBLIC) & released).sum())
    low, high = clopper_pearson(shared[0], n)
    return Finding(
        family="copying",
        attack="shared_runs",
        statistic=f"share of the release's {RUN}-word runs that occur in members",
        value=shared[0] / n if n else None,
        low=low if n else None,
        high=high if n else None,
        control=shared[1] / n if n and n_nonmembers else None,
        n_members=n_members,
        n_nonmembers=n_nonmembers,
        detail=(
            f"{n} runs, set phrases included; {in_public} occur in public texts. Runs overlap, so the "
            "interval is too narrow; compare with the control only where both sides have equally many texts."
        ),
    )
