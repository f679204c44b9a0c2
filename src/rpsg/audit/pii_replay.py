"""Do the members' own personal details come back in the release, and more often than non-members' do.

What counts is the private string itself: a release full of invented names replays nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rpsg.audit.details import Detail, Kind, find_details
from rpsg.audit.estimators import clopper_pearson
from rpsg.audit.events import EventCounts, IntArray
from rpsg.audit.finding import Finding, Game
from rpsg.audit.private_details import DetailFinder, PrivateDetails
from rpsg.audit.verdict import ALPHA

KINDS: tuple[Kind, ...] = (
    "email", "url", "phone", "username", "id", "date", "address", "name", "place", "amount"
)  # fmt: skip
TELLING = "pii_telling"
# One sign more or less is another date, another sum.
_NOT_FUZZY = frozenset({"amount", "date"})
_MIN_FUZZY = 6
_MAX_FUZZY = 100
# Who is meant is plain from these, where they are long. Public ones, such as a helpline's, return by chance,
# of members and of non-members alike, so they are counted on both sides.
_TELLING = frozenset({"address", "email", "id", "phone"})
_MIN_TELLING = 10


def pii_replay(game: Game) -> tuple[Finding, ...]:
    """Counts private details that are in the release, with those of non-members as control.

    A detail is private if texts of one unit only have it, and no public text. It is found by
    `rpsg.audit.details`, which shares nothing with the detector that removes details.

    Returns:
        The share of member units of whom a private detail is in the release word for word (it decides); the
        same up to one sign or the order of words; how many member units have an address or a number of ten
        signs or more there (a leak by itself where an exact test of these alone gives p < 0.01); by kind,
        the share of details that are there.

    Raises:
        DataError: units do not fit the texts.
    """
    replay = _Replay.of(game)
    return (
        _units_finding(replay, fuzzy=False),
        _units_finding(replay, fuzzy=True),
        _telling_finding(replay),
        *(_kind_finding(replay, kind) for kind in KINDS),
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateReplay:
    """A member's detail that is in the release; for a file in `private/`, never for a report.

    Attributes:
        member: row of the member text.
        synthetic: row of the released text.
        kind: of the detail.
    """

    member: int
    synthetic: int
    kind: Kind

    def __repr__(self) -> str:
        return "PrivateReplay(<a detail>)"


def find_replays(game: Game) -> tuple[PrivateReplay, ...]:
    """Returns where which member's private detail is in the release, word for word; amounts left out.

    Raises:
        DataError: units do not fit the texts.
    """
    replay = _Replay.of(game)
    finder = DetailFinder(replay.private.of_members() & replay.exact)
    where: defaultdict[Detail, list[int]] = defaultdict(list)
    for row, text in enumerate(game.synthetic):
        for detail in finder.find(text):
            where[detail].append(row)
    return tuple(
        PrivateReplay(member=member, synthetic=row, kind=detail.kind)
        for member, text in enumerate(game.members)
        for detail in sorted(finder.find(text), key=lambda found: (found.kind, found.words))
        for row in where[detail]
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Replay:
    """Which private details are in the release."""

    private: PrivateDetails
    exact: frozenset[Detail]
    fuzzy: frozenset[Detail]

    @classmethod
    def of(cls, game: Game) -> "_Replay":
        private = PrivateDetails.of(game)
        finder = DetailFinder(private.owners)
        exact = frozenset(detail for text in game.synthetic for detail in finder.find(text))
        return cls(private=private, exact=exact, fuzzy=exact | _near(private.owners, game.synthetic))

    def count_units(self, *, fuzzy: bool) -> EventCounts:
        """Counts units with a tested detail, and those of them that have one in the release."""
        shown = self.fuzzy if fuzzy else self.exact
        tested = self.private.of_members() | self.private.of_nonmembers()
        return self.private.units.count_units(self._units(tested & shown), among=self._units(tested))

    def count_telling(self) -> EventCounts:
        """Counts units with an address or number that tells who is meant, and those found in the release."""
        telling = {detail for detail in self.private.owners if _is_telling(detail)}
        return self.private.units.count_units(self._units(telling & self.exact), among=self._units(telling))

    def _units(self, details: Iterable[Detail]) -> IntArray:
        return np.array(sorted({self.private.owners[detail] for detail in details}), dtype=np.int64)

    def count_details(self, kind: Kind) -> EventCounts:
        """Counts details of a kind, and those of them that are in the release word for word."""
        n = self.private.units.n_members
        sides = [
            [d for d, unit in self.private.owners.items() if d.kind == kind and (unit < n) is inside]
            for inside in (True, False)
        ]
        hits = [sum(detail in self.exact for detail in side) for side in sides]
        return EventCounts(
            members=hits[0], nonmembers=hits[1], n_members=len(sides[0]), n_nonmembers=len(sides[1])
        )


def _near(owners: Iterable[Detail], released: Sequence[str]) -> frozenset[Detail]:
    """Returns private details that are a released detail of their kind but for a sign or the word order."""
    shown = {key for text in released for detail in find_details(text) for key in _keys(detail)}
    return frozenset(detail for detail in owners if any(key in shown for key in _keys(detail)))


def _keys(detail: Detail) -> set[tuple[Kind, str]]:
    """Two details have a key in common if one sign taken from each, or from one, makes them equal.

    So does a sign that was changed, and so do two that were swapped, and words in another order.
    """
    text = " ".join(sorted(detail.words))
    # All its neighbours of a run of a million digits would be a million times a million signs.
    if detail.kind in _NOT_FUZZY or not _MIN_FUZZY <= len(text) <= _MAX_FUZZY:
        return {(detail.kind, text)} if len(text) > _MAX_FUZZY else set()
    return {(detail.kind, text), *((detail.kind, text[:i] + text[i + 1 :]) for i in range(len(text)))}


def _units_finding(replay: _Replay, *, fuzzy: bool) -> Finding:
    counts = replay.count_units(fuzzy=fuzzy)
    low, high = counts.member_interval
    how = "up to one sign or the order of words" if fuzzy else "word for word"
    return Finding(
        family="pii",
        attack="pii_replay_fuzzy" if fuzzy else "pii_replay",
        statistic="share of members of whom a private detail is in the release",
        value=counts.member_rate,
        low=low if counts.n_members else None,
        high=high if counts.n_members else None,
        control=counts.nonmember_rate,
        p_value=counts.p_value(),
        n_members=counts.n_members,
        n_nonmembers=counts.n_nonmembers,
        decides=not fuzzy and counts.n_members > 0 and counts.n_nonmembers > 0,
        detail=(
            f"{how}; units that have a detail of their own, amounts left out. {counts.members} members, "
            f"{counts.nonmembers} non-members; Fisher's exact test over units."
        ),
    )


def _telling_finding(replay: _Replay) -> Finding:
    counts = replay.count_telling()
    p_value = counts.p_value()
    return Finding(
        family="pii",
        attack=TELLING,
        statistic="members with an address or number of their own in the release",
        value=float(counts.members),
        control=float(counts.nonmembers),
        p_value=p_value,
        n_members=counts.n_members,
        n_nonmembers=counts.n_nonmembers,
        is_leak=p_value is not None and p_value < ALPHA,
        detail=(
            f"e-mail and postal addresses, phone numbers and ids of {_MIN_TELLING} signs or more, word for "
            f"word; {counts.n_members} members and {counts.n_nonmembers} non-members have one. "
            "Fisher's exact test over units."
        ),
    )


def _is_telling(detail: Detail) -> bool:
    return detail.kind in _TELLING and len(" ".join(detail.words)) >= _MIN_TELLING


def _kind_finding(replay: _Replay, kind: Kind) -> Finding:
    counts = replay.count_details(kind)
    low, high = clopper_pearson(counts.members, counts.n_members)
    return Finding(
        family="pii",
        attack=f"pii_{kind}",
        statistic="share of private details in the release, word for word",
        value=counts.member_rate,
        low=low if counts.n_members else None,
        high=high if counts.n_members else None,
        control=counts.nonmember_rate,
        n_members=counts.n_members,
        n_nonmembers=counts.n_nonmembers,
        detail=(
            f"{counts.members} of the members' details, {counts.nonmembers} of the non-members'; numbers are "
            "of different details, not of units."
        ),
    )
