"""Self-BLEU, distinct-n and MS-Jaccard from one table of n-gram counts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatVector = npt.NDArray[np.float64]
MAX_ORDER = 4
# NLTK's smoothing method 1 puts this in place of a count of 0.
_EPSILON = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GramCounts:
    """How often each n-gram occurs in each text of several data sets.

    One entry an (n-gram, text) pair, by n-gram and within it by falling count, so that the largest and
    second largest count of an n-gram stand at the start of its run in any choice of texts.

    Attributes:
        grams: number of the n-gram, ascending.
        texts: number of the text.
        counts: occurrences, at least 1.
        totals: n-grams of each text, repeats included.
        n_grams: how many different ones there are.
    """

    grams: IntArray
    texts: IntArray
    counts: IntArray
    totals: IntArray
    n_grams: int

    def of(self, rows: IntArray) -> "GramCounts":
        """Returns the part about some texts, which are renumbered in the order given."""
        places = np.full(len(self.totals), -1, dtype=np.int64)
        places[rows] = np.arange(len(rows))
        kept = places[self.texts] >= 0
        return GramCounts(
            grams=self.grams[kept],
            texts=places[self.texts[kept]],
            counts=self.counts[kept],
            totals=self.totals[rows],
            n_grams=self.n_grams,
        )

    def share_distinct(self) -> float:
        """Different n-grams over all n-grams; 0 where there are none."""
        total = int(self.totals.sum())
        return int(_starts(self.grams).sum()) / total if total else 0.0

    def rates(self) -> FloatVector:
        """Mean occurrences of each n-gram in a text, shape (n_grams,)."""
        weights = self.counts.astype(np.float64)
        sums: FloatVector = np.bincount(self.grams, weights=weights, minlength=self.n_grams).astype(
            np.float64
        )
        return sums / len(self.totals)

    def matches(self) -> FloatVector:
        """Occurrences in each text that another text matches: clipped by its largest count elsewhere."""
        first = np.flatnonzero(_starts(self.grams))
        run = np.cumsum(_starts(self.grams)) - 1
        largest = self.counts[first]
        has_second = np.diff(np.append(first, len(self.grams))) > 1
        second = np.where(has_second, self.counts[np.minimum(first + 1, len(self.counts) - 1)], 0)
        elsewhere = largest[run]
        elsewhere[first] = second
        clipped = np.minimum(self.counts, elsewhere)
        sums: FloatVector = np.bincount(self.texts, weights=clipped, minlength=len(self.totals)).astype(
            np.float64
        )
        return sums


def count_ngrams(tokenised: Sequence[Sequence[str]], *, max_order: int = MAX_ORDER) -> list[GramCounts]:
    """Counts the n-grams of texts for n = 1 to `max_order`.

    Args:
        tokenised: the tokens of each text.
        max_order: largest n.

    Returns:
        One table an order.
    """
    lengths = np.fromiter((len(tokens) for tokens in tokenised), dtype=np.int64, count=len(tokenised))
    numbers: dict[str, int] = {}
    words = np.fromiter(
        (numbers.setdefault(token, len(numbers)) for tokens in tokenised for token in tokens),
        dtype=np.int64,
        count=int(lengths.sum()),
    )
    owners = np.repeat(np.arange(len(lengths)), lengths)
    grams, n_grams = words, len(numbers)
    tables = [_tabulate(grams, owners, lengths, n_grams)]
    for order in range(2, max_order + 1):
        # An n-gram is an (n-1)-gram and the word after it, in the same text.
        inside = owners[: len(grams) - 1] == owners[order - 1 :]
        keys = grams[:-1] * max(1, len(numbers)) + words[order - 1 :]
        known, found = np.unique(keys[inside], return_inverse=True)
        grams = np.zeros(len(keys), dtype=np.int64)
        grams[inside] = found
        tables.append(
            _tabulate(found, owners[: len(keys)][inside], np.maximum(lengths - order + 1, 0), len(known))
        )
    return tables


def _tabulate(grams: IntArray, owners: IntArray, totals: IntArray, n_grams: int) -> GramCounts:
    n_texts = max(1, len(totals))
    pairs, counts = np.unique(grams * n_texts + owners, return_counts=True)
    found, texts = np.divmod(pairs, n_texts)
    # By n-gram, then falling count: both fit one key.
    order = np.argsort(found * (int(counts.max(initial=0)) + 1) - counts, kind="stable")
    return GramCounts(
        grams=found[order],
        texts=texts[order],
        counts=counts[order].astype(np.int64),
        totals=totals,
        n_grams=n_grams,
    )


def _starts(grams: IntArray) -> npt.NDArray[np.bool_]:
    starts = np.ones(len(grams), dtype=bool)
    starts[1:] = grams[1:] != grams[:-1]
    return starts


def self_bleu(tokenised: Sequence[Sequence[str]]) -> float:
    """Mean sentence-BLEU-4 of each text against all others, with smoothing method 1.

    Equal to the mean of NLTK's `sentence_bleu(others, text, smoothing_function=method1)`. It grows with the
    number of texts; compare equal numbers only.

    Args:
        tokenised: the tokens of each text, at least two texts.
    """
    return float(bleu_against_others(count_ngrams(tokenised)).mean())


def bleu_against_others(tables: Sequence[GramCounts]) -> FloatVector:
    """Returns the sentence-BLEU of each text against all others, shape (n,).

    Args:
        tables: of orders 1 to 4 (`count_ngrams`), of the same texts.
    """
    lengths = tables[0].totals
    if len(lengths) < 2:
        raise ValueError("self-BLEU needs at least two texts")
    log_mean = np.zeros(len(lengths))
    for table in tables:
        matches = table.matches()
        matches[matches == 0] = _EPSILON
        log_mean += np.log(matches / np.maximum(table.totals, 1)) / len(tables)
    nearest = _nearest_lengths(lengths)
    penalty = np.where(lengths > nearest, 0.0, 1 - nearest / np.maximum(lengths, 1))
    scores: FloatVector = np.exp(log_mean + penalty)
    # Without a common word BLEU is 0, smoothed or not.
    scores[tables[0].matches() == 0] = 0.0
    return scores


def _nearest_lengths(lengths: IntArray) -> IntArray:
    # The length of another text nearest to a text's own; the shorter of two equally near.
    values, counts = np.unique(lengths, return_counts=True)
    nearest = values.copy()
    for i in np.flatnonzero(counts == 1):
        neighbours = values[max(0, i - 1) : i].tolist() + values[i + 1 : i + 2].tolist()
        nearest[i] = min(neighbours, key=lambda length: (abs(length - values[i]), length))
    return nearest[np.searchsorted(values, lengths)]


def ms_jaccard(one: Iterable[FloatVector], other: Iterable[FloatVector]) -> float:
    """Multiset Jaccard similarity of n-gram rates (MS-Jaccard, Montahaei et al. 2019, equation 1).

    For every order, the sum of the smaller rates over the sum of the larger ones; then the geometric mean
    over orders. 1 for sets with equal rates. Rare n-grams make it low even for two real samples.

    Args:
        one: of each order, occurrences a text of each n-gram (`GramCounts.rates`).
        other: the same of another data set, over the same n-grams.
    """
    shares = []
    for left, right in zip(one, other, strict=True):
        larger = float(np.maximum(left, right).sum())
        shares.append(float(np.minimum(left, right).sum()) / larger if larger else 0.0)
    return float(np.prod(shares) ** (1 / len(shares)))
