"""Runs of words that one unit alone has: what a release shows of them, it has from that unit or by chance.

A run that texts of two units contain (a set phrase, a quotation, a legal notice) is nobody's own; nor is one
that a public text contains.
"""

from dataclasses import dataclass

import numpy as np

from rpsg.audit.events import BoolArray, IntArray, Units
from rpsg.audit.finding import Game
from rpsg.audit.wordruns import WordRuns, in_group

MEMBERS, NONMEMBERS, PUBLIC, SYNTHETIC = range(4)
# A run is a set phrase where it is made of runs so long that others have too, around a date or a name.
_PHRASE = 8


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class KnownRuns:
    """The runs of a game's texts and the units that have them.

    Attributes:
        runs: of members, non-members, public and synthetic texts, in this order.
        units: of members and non-members.
        n_known: number of texts before the first synthetic one.
    """

    runs: WordRuns
    units: Units
    n_known: int

    @classmethod
    def of(cls, game: Game) -> "KnownRuns":
        """Reads the texts of a game.

        Raises:
            DataError: units do not fit the texts.
        """
        units = Units.of(game)
        runs = WordRuns.build(game.members, game.nonmembers, game.public, game.synthetic)
        n_known = len(game.members) + len(game.nonmembers) + len(game.public)
        return cls(runs=runs, units=units, n_known=n_known)

    def owners(self, length: int, *, mostly_own: bool = False) -> IntArray:
        """Returns who alone has the run of `length` words that starts at each word and the release contains.

        The question is symmetric in members and non-members: whether a unit is found does not depend on
        which side it is on, except through the release.

        Args:
            length: words of a run.
            mostly_own: half of its words must stand in no run of eight that others have too. A notice that
                everybody uses, with a date in it, is not somebody's own for the date.

        Returns:
            Unit number, also at the words of the release; -1 where the run is not in the release, or is
            nobody's own. Shape (n_words,).
        """
        named, group = self.runs.name(length), self.runs.group
        asked = in_group(named, group, SYNTHETIC) & ~in_group(named, group, PUBLIC)
        owner_of = self._owner_of(named, asked)
        if mostly_own:
            phrases = asked & (group < PUBLIC) & (self._n_own_words(length) < length / 2)
            owner_of[named[phrases]] = -1
        return np.where(asked, owner_of[named], -1)

    def _n_own_words(self, length: int) -> IntArray:
        """Returns, of `length` words from each on, how many stand in no run of eight that others have too."""
        named, group = self.runs.name(_PHRASE), self.runs.group
        is_common = (self._owner_of(named, named >= 0)[named] < 0) | in_group(named, group, PUBLIC)
        begun = np.concatenate([[0], np.cumsum((named >= 0) & is_common)])
        places = np.arange(len(named))
        is_own = begun[places + 1] == begun[np.maximum(places + 1 - _PHRASE, 0)]
        owned = np.concatenate([[0], np.cumsum(is_own)])
        n_own: IntArray = owned[np.minimum(places + length, len(named))] - owned[:-1]
        return n_own

    def _owner_of(self, named: IntArray, asked: BoolArray) -> IntArray:
        """Returns, of each run by its name, the unit that alone has it; -1 where none does."""
        found = np.flatnonzero(asked & (self.runs.group < PUBLIC))
        run, unit = named[found], self.units.all[self.runs.text[found]]
        owner_of = np.full(len(named) + 1, -1, dtype=np.int64)
        # Of several units one is noted; whoever finds another there has it in common.
        owner_of[run] = unit
        owner_of[run[owner_of[run] != unit]] = -1
        return owner_of

    def units_with_own(self, length: int) -> IntArray:
        """Returns the units that have a run of `length` words of their own, in the release or not."""
        named, group = self.runs.name(length), self.runs.group
        owner_of = self._owner_of(named, (named >= 0) & ~in_group(named, group, PUBLIC))
        return np.unique(owner_of[owner_of >= 0])

    def shared_with_release(self, length: int) -> IntArray:
        """Returns the member units of whom the release has a run of `length` words that others have too.

        A set phrase; or a text that stands nearly the same in two places, whose copies are nobody's own.
        """
        named, group = self.runs.name(length), self.runs.group
        asked = in_group(named, group, SYNTHETIC) & ~in_group(named, group, PUBLIC) & (group == MEMBERS)
        common = asked & (self.owners(length, mostly_own=True) < 0)
        return np.unique(self.units.all[self.runs.text[common]])

    def texts_with(self, marked: BoolArray) -> BoolArray:
        """Tells which member and non-member texts have a marked word, members first.

        Args:
            marked: shape (n_words,).
        """
        happened = np.zeros(len(self.units.all), dtype=bool)
        happened[self.runs.text[marked & (self.runs.group < PUBLIC)]] = True
        return happened
