"""Personal details that texts of one unit alone have, and where else they occur."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rpsg.audit.details import Detail, find_details
from rpsg.audit.events import Units
from rpsg.audit.finding import Game
from rpsg.text import normalised_words

# "3 patients" returns by chance: listed, never tested.
BY_CHANCE = frozenset({"amount"})
_PHONE_DIGITS = 7


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateDetails:
    """The private details of a game and whose they are.

    A detail is private if texts of one unit only have it, and no public text. The question is symmetric in
    members and non-members.

    Attributes:
        units: of members and non-members.
        owners: private detail to unit number.
    """

    units: Units
    owners: Mapping[Detail, int]

    @classmethod
    def of(cls, game: Game) -> "PrivateDetails":
        """Finds the details of all known texts and keeps the private ones.

        Raises:
            DataError: units do not fit the texts.
        """
        units = Units.of(game)
        texts = (*game.members, *game.nonmembers)
        found = {detail for text in texts for detail in find_details(text)}
        finder = DetailFinder(found)
        having: defaultdict[Detail, set[int]] = defaultdict(set)
        for text, unit in zip(texts, units.all.tolist(), strict=True):
            for detail in finder.find(text):
                having[detail].add(unit)
        public = {detail for text in game.public for detail in finder.find(text)}
        owners = {
            detail: next(iter(having[detail]))
            for detail in found
            if len(having[detail]) == 1 and detail not in public
        }
        return cls(units=units, owners=owners)

    def of_members(self) -> set[Detail]:
        """Returns the members' details, amounts left out."""
        return {d for d, unit in self._tested() if unit < self.units.n_members}

    def of_nonmembers(self) -> set[Detail]:
        """Returns the non-members' details, amounts left out."""
        return {d for d, unit in self._tested() if unit >= self.units.n_members}

    def _tested(self) -> list[tuple[Detail, int]]:
        return [(d, unit) for d, unit in self.owners.items() if d.kind not in BY_CHANCE]


class DetailFinder:
    """Finds given details in texts by their words, wherever they stand."""

    def __init__(self, details: Iterable[Detail]) -> None:
        self._by_first: defaultdict[str, list[Detail]] = defaultdict(list)
        self._phones: defaultdict[str, list[Detail]] = defaultdict(list)
        for detail in details:
            if detail.kind == "phone":
                self._phones[detail.words[0][-_PHONE_DIGITS:]].append(detail)
            else:
                self._by_first[detail.words[0]].append(detail)

    def find(self, text: str) -> set[Detail]:
        """Returns the details that a text has. A phone number is the same without its area code."""
        words = tuple(normalised_words(text))
        found = {
            detail
            for place, word in enumerate(words)
            if word in self._by_first
            for detail in self._by_first[word]
            if words[place : place + len(detail.words)] == detail.words
        }
        if self._phones:
            for other in find_details(text, last="phone"):
                if other.kind == "phone":
                    number = other.words[0]
                    found |= {
                        detail
                        for detail in self._phones.get(number[-_PHONE_DIGITS:], ())
                        if number.endswith(detail.words[0]) or detail.words[0].endswith(number)
                    }
        return found
