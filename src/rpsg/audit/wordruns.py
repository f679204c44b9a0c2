"""Runs of words that texts share, found by naming every run once.

Karp, Miller and Rosenberg (1972): the runs of 2k words are named by the pair of names of their halves, so two
runs are equal exactly if their names are. No hash, hence no collision. Sorting suffixes by these names
(Manber and Myers 1993) puts the longest match of every position next to it. Time grows as n log n in the
number of words, and with the logarithm of the longest text; memory is one integer a word and doubling.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rpsg.text import words_of

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def normalised_words(text: str) -> list[str]:
    """Returns the words of a text, compatible characters and upper and lower case made equal."""
    return words_of(unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class WordRuns:
    """The words of several groups of texts, one after another, and the names of their runs.

    Attributes:
        group: group of each word's text, in the order given to `build`; shape (n_words,).
        text: number of each word's text over all groups; shape (n_words,).
        left: words from here to the end of the text, this one included; shape (n_words,).
        n_texts: number of texts over all groups.
        names: of runs of 1, 2, 4, ... words that start here; runs that cross the end of their text have
            names of their own. They are in the order of the runs' words.
    """

    group: IntArray
    text: IntArray
    left: IntArray
    n_texts: int
    names: tuple[IntArray, ...]

    @classmethod
    def build(cls, *groups: Sequence[str]) -> "WordRuns":
        """Reads groups of texts.

        Args:
            groups: texts; every group has a number, from 0.
        """
        tokenised = [normalised_words(text) for group in groups for text in group]
        lengths = np.fromiter(map(len, tokenised), dtype=np.int64, count=len(tokenised))
        vocabulary: dict[str, int] = {}
        words = np.fromiter(
            (vocabulary.setdefault(word, len(vocabulary)) for words in tokenised for word in words),
            dtype=np.int64,
            count=int(lengths.sum()),
        )
        sizes = [len(group) for group in groups]
        ends = np.repeat(np.cumsum(lengths), lengths)
        left = ends - np.arange(len(words))
        return cls(
            group=np.repeat(np.repeat(np.arange(len(groups)), sizes), lengths),
            text=np.repeat(np.arange(len(tokenised)), lengths),
            left=left,
            n_texts=len(tokenised),
            names=tuple(_name_runs(words, left, int(lengths.max(initial=1)))),
        )

    def name(self, length: int) -> IntArray:
        """Returns a number for the run of `length` words that starts at each word, -1 where none does.

        Two runs are equal exactly if their numbers are.
        """
        named = np.full(len(self.left), -1, dtype=np.int64)
        starts = np.flatnonzero(self.left >= length)
        if not len(starts):
            return named
        power = length.bit_length() - 1
        first = self.names[power][starts]
        second = self.names[power][starts + length - (1 << power)]
        named[starts] = first * (len(self.left) + 1) + second
        return named

    def longest_in(self, group: int) -> IntArray:
        """Returns how many words from each word on occur somewhere in a group, shape (n_words,)."""
        size = len(self.left)
        order = np.argsort(self.names[-1], kind="stable")
        inside = self.group[order] == group
        places = np.arange(size)
        before = np.maximum.accumulate(np.where(inside, places, -1))
        after = np.minimum.accumulate(np.where(inside, places, size)[::-1])[::-1]
        longest = np.zeros(size, dtype=np.int64)
        for neighbour, exists in ((before, before >= 0), (after, after < size)):
            here = order[exists]
            longest[here] = np.maximum(longest[here], self._common(here, order[neighbour[exists]]))
        return longest

    def _common(self, one: IntArray, other: IntArray) -> IntArray:
        common = np.zeros(len(one), dtype=np.int64)
        limit = np.minimum(self.left[one], self.left[other])
        for power in range(len(self.names) - 1, -1, -1):
            fits = np.flatnonzero(common + (1 << power) <= limit)
            names = self.names[power]
            equal = names[one[fits] + common[fits]] == names[other[fits] + common[fits]]
            common[fits[equal]] += 1 << power
        return common


def _name_runs(words: IntArray, left: IntArray, longest: int) -> list[IntArray]:
    # After the end of a text stands a word that occurs nowhere else: runs over it equal no other.
    names = [_rank(words)]
    step = 1
    while 2 * step <= longest:
        names.append(_double(names[-1], left, step))
        step *= 2
    if step < longest:
        # Suffixes that agree in `step` words are told apart by the rest.
        names.append(_double(names[-1], left, step))
    return names


def _double(names: IntArray, left: IntArray, step: int) -> IntArray:
    size = len(names)
    # What follows the end of a text is numbered by the place of that end.
    places = np.arange(size)
    ends = places + left
    inside = left > step
    second = np.where(inside, names[np.minimum(places + step, size - 1)], size + ends)
    return _rank(names * (2 * size + 2) + second)


def _rank(keys: IntArray) -> IntArray:
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def in_group(named: IntArray, group: IntArray, number: int) -> BoolArray:
    """Tells of each run whether it occurs in a group; False where there is no run.

    Args:
        named: `WordRuns.name`.
        group: `WordRuns.group`.
        number: of the group.
    """
    known = np.unique(named[group == number])
    found: BoolArray = np.isin(named, known) & (named >= 0)
    return found
