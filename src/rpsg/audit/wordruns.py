"""Runs of words that texts share, found by naming every run once.

Karp, Miller and Rosenberg (1972): the runs of 2k words are named by the pair of names of their halves, so two
runs are equal exactly if their names are. No hash, hence no collision. Sorting suffixes by these names
(Manber and Myers 1993) puts the longest match of every position next to it. Time grows as n log n in the
number of words, and with the logarithm of the longest text; memory is one integer a word and doubling.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from rpsg.text import normalised_words

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


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
        vocabulary: defaultdict[str, int] = defaultdict(count().__next__)
        texts = [
            np.fromiter(map(vocabulary.__getitem__, normalised_words(text)), dtype=np.int64)
            for group in groups
            for text in group
        ]
        words = np.concatenate([*texts, np.empty(0, dtype=np.int64)])
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        sizes = [len(group) for group in groups]
        ends = np.repeat(np.cumsum(lengths), lengths)
        left = ends - np.arange(len(words))
        return cls(
            group=np.repeat(np.repeat(np.arange(len(groups)), sizes), lengths),
            text=np.repeat(np.arange(len(texts)), lengths),
            left=left,
            n_texts=len(texts),
            names=tuple(_name_runs(words, left, int(lengths.max(initial=1)))),
        )

    def name(self, length: int) -> IntArray:
        """Returns a number for the run of `length` words that starts at each word, -1 where none does.

        Two runs are equal exactly if their numbers are. A number is below the number of words.
        """
        named = np.full(len(self.left), -1, dtype=np.int64)
        whole = self.left >= length
        if not whole.any():
            return named
        power = length.bit_length() - 1
        names, shift = self.names[power], length - (1 << power)
        if shift:
            # The run is two overlapping ones that have names.
            shared = np.flatnonzero((np.bincount(names)[names] > 1) & whole)
            names = _refine(names, shared, names[shared + shift])[0]
        named[whole] = names[whole]
        return named

    def longest_in(self, group: int, *, of: BoolArray | None = None) -> IntArray:
        """Returns how many words from each word on occur somewhere in a group.

        Args:
            group: its number.
            of: which words are asked for, shape (n_words,); the others get 0. All without it.

        Returns:
            Shape (n_words,).
        """
        size = len(self.left)
        order = self._sorted()
        inside = self.group[order] == group
        asked = np.ones(size, dtype=bool) if of is None else of[order]
        places = np.arange(size)
        before = np.maximum.accumulate(np.where(inside, places, -1))
        after = np.minimum.accumulate(np.where(inside, places, size)[::-1])[::-1]
        longest = np.zeros(size, dtype=np.int64)
        for neighbour, exists in ((before, asked & (before >= 0)), (after, asked & (after < size))):
            here = order[exists]
            longest[here] = np.maximum(longest[here], self._common(here, order[neighbour[exists]]))
        return longest

    def _sorted(self) -> IntArray:
        # A name is the first of the places that its runs have in the order; equal runs share them out.
        names = self.names[-1]
        counts = np.bincount(names, minlength=len(names))
        order = np.full(len(names), -1, dtype=np.int64)
        alone = counts[names] == 1
        order[names[alone]] = np.flatnonzero(alone)
        others = np.flatnonzero(~alone)
        order[order < 0] = others[np.argsort(names[others], kind="stable")]
        return order

    def _common(self, one: IntArray, other: IntArray) -> IntArray:
        """Returns how many words two places have in common, for many pairs at once."""
        # Most have few: go up while the names are equal, then down from there.
        level = np.zeros(len(one), dtype=np.int64)
        alive = np.arange(len(one))
        limit = np.minimum(self.left[one], self.left[other])
        for power, names in enumerate(self.names):
            alive = alive[limit[alive] >= 1 << power]
            alive = alive[names[one[alive]] == names[other[alive]]]
            level[alive] = power + 1
        common = np.where(level > 0, 1 << np.maximum(level - 1, 0), 0)
        for power in range(len(self.names) - 1, -1, -1):
            fits = np.flatnonzero((level > power + 1) & (common + (1 << power) <= limit))
            names = self.names[power]
            equal = names[one[fits] + common[fits]] == names[other[fits] + common[fits]]
            common[fits[equal]] += 1 << power
        return common


def _name_runs(words: IntArray, left: IntArray, longest: int) -> list[IntArray]:
    # The name of a run is how many places come before the first of its equals in the order of runs. So the
    # names of runs without an equal hold for longer runs too: only the others are sorted again.
    counts = np.bincount(words)
    names = [(np.cumsum(counts) - counts)[words]]
    shared = np.flatnonzero(counts[words] > 1)
    step = 1
    while step < longest:
        doubled, shared = _double(names[-1], shared, left, step)
        names.append(doubled)
        step *= 2
    return names


def _double(names: IntArray, shared: IntArray, left: IntArray, step: int) -> tuple[IntArray, IntArray]:
    """Returns the names of runs twice as long, and the places of those that still have an equal."""
    size = len(names)
    # What follows the end of a text is numbered by the place of that end: it equals nothing else.
    ends = size + shared + left[shared]
    second = np.where(left[shared] > step, names[np.minimum(shared + step, size - 1)], ends)
    return _refine(names, shared, second)


def _refine(names: IntArray, shared: IntArray, second: IntArray) -> tuple[IntArray, IntArray]:
    """Tells runs of equal names apart by a second name; returns new names and the places still equal."""
    keys = names[shared] * (2 * len(names) + 2) + second
    order = np.argsort(keys)
    keys, places = keys[order], shared[order]
    is_new = np.diff(keys, prepend=-1) != 0
    is_new_first = np.diff(names[places], prepend=-1) != 0
    rows = np.arange(len(keys))
    first_of_run = np.maximum.accumulate(np.where(is_new, rows, 0))
    first_of_half = np.maximum.accumulate(np.where(is_new_first, rows, 0))
    refined = names.copy()
    refined[places] += first_of_run - first_of_half
    sizes = np.diff(np.append(np.flatnonzero(is_new), len(keys)))
    return refined, places[np.repeat(sizes, sizes) > 1]


def in_group(named: IntArray, group: IntArray, number: int) -> BoolArray:
    """Tells of each run whether it occurs in a group; False where there is no run.

    Args:
        named: `WordRuns.name`.
        group: `WordRuns.group`.
        number: of the group.
    """
    # The last place stands for "no run", which is numbered -1.
    occurs = np.zeros(len(named) + 1, dtype=bool)
    occurs[named[group == number]] = True
    occurs[-1] = False
    return occurs[named]
