"""Events that happen to a unit or not, counted among members and among non-members.

A unit is a person where the data say whom a text belongs to, else a text. Units were assigned at random, so
without a leak members and non-members are exchangeable. The texts of one unit are not: they count once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rpsg.audit.estimators import clopper_pearson
from rpsg.audit.finding import Game
from rpsg.errors import DataError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Units:
    """Numbers of the units that texts belong to, shared by both sides and counted from 0.

    Attributes:
        members: of each member text.
        nonmembers: of each non-member text.
        n_members: units with a member text; their numbers come first.
        n_nonmembers: units with a non-member text.
    """

    members: IntArray
    nonmembers: IntArray
    n_members: int
    n_nonmembers: int

    @classmethod
    def of(cls, game: Game) -> "Units":
        """Numbers the units of a game.

        Raises:
            DataError: as many units as texts are not given, or a unit has texts on both sides.
        """
        members = _names(game.member_units, len(game.members), "member")
        nonmembers = _names(game.nonmember_units, len(game.nonmembers), "non-member")
        if both := set(members) & set(nonmembers):
            raise DataError(
                f"{len(both)} units have texts among the members and among the non-members; "
                "split the data by unit, so that all texts of a unit are on one side"
            )
        numbers: dict[tuple[str, str], int] = {}
        codes = [
            np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int64, len(names))
            for names in (members, nonmembers)
        ]
        n_members = len(set(members))
        return cls(
            members=codes[0],
            nonmembers=codes[1],
            n_members=n_members,
            n_nonmembers=len(numbers) - n_members,
        )

    @property
    def all(self) -> IntArray:
        """Of each text, members before non-members."""
        return np.concatenate([self.members, self.nonmembers])

    @property
    def sizes(self) -> IntArray:
        """How many texts each unit has, shape (n_members + n_nonmembers,)."""
        return np.bincount(self.all, minlength=self.n_members + self.n_nonmembers)

    @property
    def n_partners(self) -> int:
        """How many units have as many texts as some unit of the other side; of the side that has fewer."""
        members, others = self.sizes[: self.n_members], self.sizes[self.n_members :]
        return min(int(np.isin(members, others).sum()), int(np.isin(others, members).sum()))

    def count(self, happened: BoolArray) -> "EventCounts":
        """Counts the units to one or more of whose texts something happened.

        Args:
            happened: to each text, members before non-members.
        """
        return self.count_units(np.unique(self.all[happened]))

    def count_units(self, having: IntArray, among: IntArray | None = None) -> "EventCounts":
        """Counts units.

        Args:
            having: numbers of the units to which something happened, each once.
            among: numbers of the units to which it could have; None for all.
        """
        asked = np.arange(self.n_members + self.n_nonmembers) if among is None else np.asarray(among, int)
        sizes, strata = self.sizes, []
        for size in np.unique(sizes[asked]):
            alike = asked[sizes[asked] == size]
            has = alike[np.isin(alike, having)]
            strata.append(
                EventCounts(
                    members=int((has < self.n_members).sum()),
                    nonmembers=int((has >= self.n_members).sum()),
                    n_members=int((alike < self.n_members).sum()),
                    n_nonmembers=int((alike >= self.n_members).sum()),
                )
            )
        return EventCounts.of(strata)


def _names(units: tuple[str, ...], n_texts: int, side: str) -> list[tuple[str, str]]:
    if units and len(units) != n_texts:
        raise DataError(f"there are {n_texts} {side} texts and {len(units)} of their units; give one a text")
    # A text without a unit is one of its own, whatever its number.
    return [("unit", name) for name in units] or [(side, str(i)) for i in range(n_texts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCounts:
    """To how many units an event happened.

    Attributes:
        members: member units with the event.
        nonmembers: non-member units with the event.
        n_members: all member units.
        n_nonmembers: all non-member units.
        strata: the same, of units with one number of texts each; empty where all are alike.
    """

    members: int
    nonmembers: int
    n_members: int
    n_nonmembers: int
    strata: "tuple[EventCounts, ...]" = ()

    @classmethod
    def of(cls, strata: "Sequence[EventCounts]") -> "EventCounts":
        """Adds up units of every size."""
        return cls(
            members=sum(item.members for item in strata),
            nonmembers=sum(item.nonmembers for item in strata),
            n_members=sum(item.n_members for item in strata),
            n_nonmembers=sum(item.n_nonmembers for item in strata),
            strata=tuple(strata),
        )

    @property
    def mirrored(self) -> "EventCounts":
        """Members in the place of non-members."""
        return EventCounts(
            members=self.nonmembers,
            nonmembers=self.members,
            n_members=self.n_nonmembers,
            n_nonmembers=self.n_members,
            strata=tuple(item.mirrored for item in self.strata),
        )

    @property
    def member_rate(self) -> float | None:
        """Share of member units; None without any."""
        return self.members / self.n_members if self.n_members else None

    @property
    def nonmember_rate(self) -> float | None:
        """Share of non-member units; None without any."""
        return self.nonmembers / self.n_nonmembers if self.n_nonmembers else None

    @property
    def member_interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson interval of the rate among members."""
        return clopper_pearson(self.members, self.n_members)

    @property
    def nonmember_interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson interval of the rate among non-members."""
        return clopper_pearson(self.nonmembers, self.n_nonmembers)

    def p_value(self) -> float | None:
        """Of the exact test that members have the event no more often; None without units on a side.

        Fisher's test, within units of as many texts each: a unit with more texts has the event more easily,
        and a split need not give both sides as many large units. It is conditional on the numbers of both
        sides and on how many units have the event, in every stratum, so it is exact for units assigned at
        random, in fixed numbers or by independent coins.
        """
        from scipy.stats import hypergeom

        if not self.n_members or not self.n_nonmembers:
            return None
        # Chances of 0, 1, 2, ... member units with the event, over all strata.
        chances = np.ones(1)
        for item in self.strata or (self,):
            n, having = item.n_members + item.n_nonmembers, item.members + item.nonmembers
            if not n:
                continue
            chances = np.convolve(chances, hypergeom.pmf(np.arange(having + 1), n, having, item.n_members))
        return min(1.0, float(chances[self.members :].sum()))
