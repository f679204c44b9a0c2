"""Scores of canaries that use nothing but the released texts and public ones; higher looks more like "in".

Every score is a function of all canaries and the release, never of a coin.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rpsg.audit.canary import Canary, Fact, ScoreName
from rpsg.text import words_of
from rpsg.types import Embedder

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FloatVector = npt.NDArray[np.float64]
_SMOOTHING = 0.01
_START = ""


def score_canaries(
    canaries: Sequence[Canary],
    synthetic: Sequence[str],
    *,
    public: Sequence[str] = (),
    embedder: Embedder | None = None,
) -> Mapping[ScoreName, FloatVector]:
    """Returns every score that has a meaning for these canaries, each of shape (n_canaries,).

    Args:
        canaries: all of one kind.
        synthetic: the released texts.
        public: texts that the adversary knows and that are no part of the data.
        embedder: for the nearest text; without one it is found by weighted words.
    """
    texts = [canary.text for canary in canaries]
    found: dict[ScoreName, FloatVector] = {
        "nearest": _nearest(texts, synthetic, public, embedder),
        "rare_words": rare_words(texts, synthetic, public),
        "longest_run": longest_runs(texts, synthetic),
        "bigram_ratio": bigram_ratio(texts, synthetic, public),
    }
    facts = [canary.fact for canary in canaries if canary.fact is not None]
    if len(facts) == len(canaries):
        found["fact_exact"] = fact_exact(facts, synthetic)
        found["fact_fuzzy"] = fact_fuzzy(facts, synthetic)
    return found


# --- words ----------------------------------------------------------------------------------------


def _nearest(
    texts: Sequence[str], synthetic: Sequence[str], public: Sequence[str], embedder: Embedder | None
) -> FloatVector:
    """Returns the highest cosine to a released text."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if embedder is not None:
        cosines = embedder.embed(texts) @ embedder.embed(synthetic).T
        return np.asarray(cosines.max(axis=1), dtype=np.float64)
    vectoriser = TfidfVectorizer(analyzer=words_of, sublinear_tf=True).fit([*texts, *synthetic, *public])
    return _highest(vectoriser.transform(texts) @ vectoriser.transform(synthetic).T)


def rare_words(texts: Sequence[str], synthetic: Sequence[str], public: Sequence[str] = ()) -> FloatVector:
    """Returns the largest share of a text's words, weighed by rarity, that one released text has."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(analyzer=words_of, binary=True, norm=None)
    vectoriser.fit([*texts, *synthetic, *public])
    weights, released = vectoriser.transform(texts), vectoriser.transform(synthetic)
    released.data[:] = 1.0
    total = np.asarray(weights.sum(axis=1)).ravel()
    shares: FloatVector = _highest(weights @ released.T) / np.maximum(total, 1e-9)
    return shares


def _highest(products: "csr_matrix") -> FloatVector:
    return np.asarray(products.max(axis=1).toarray(), dtype=np.float64).ravel()


def longest_runs(texts: Sequence[str], synthetic: Sequence[str]) -> FloatVector:
    """Returns the length in words of the longest run that a text shares with a released one."""
    words = [words_of(text) for text in (*texts, *synthetic)]
    number = {word: i for i, word in enumerate(sorted({word for text in words for word in text}))}
    # Every text ends in a number of its own, so that no shared run crosses two texts.
    flat = [i for owner, text in enumerate(words) for i in (*(number[word] for word in text), ~owner)]
    tokens = np.array([*flat, ~len(words)], dtype=np.int64)
    owners = np.repeat(np.arange(len(words)), [len(text) + 1 for text in words])
    starts, runs = np.arange(len(owners)), tokens[:-1]
    longest, length = np.zeros(len(texts)), 1
    while True:
        is_ours = owners[starts] < len(texts)
        shared = np.isin(runs, runs[is_ours]) & np.isin(runs, runs[~is_ours])
        if not shared.any():
            return longest
        longest[owners[starts[shared & is_ours]]] = length
        # A longer shared run begins with a shared one: its number, and the word after it.
        starts = starts[shared]
        numbers = np.unique(runs[shared], return_inverse=True)[1].astype(np.int64)
        runs = numbers * (len(number) + len(words) + 2) + tokens[starts + length] + len(words) + 1
        length += 1


def bigram_ratio(texts: Sequence[str], synthetic: Sequence[str], public: Sequence[str] = ()) -> FloatVector:
    """Returns log p(text | release) - log p(text | known texts), a word (Meeus et al. 2025).

    Bigram models with additive smoothing over one vocabulary. The known texts are the public ones and the
    other canaries: a model of them says how usual the text is where nothing was released.
    """
    words, released = [words_of(text) for text in texts], [words_of(text) for text in synthetic]
    known = [words_of(text) for text in public]
    n_vocabulary = len({word for text in (*words, *released, *known) for word in text})
    target, reference = _Bigrams(released, n_vocabulary), _Bigrams([*known, *words], n_vocabulary)
    return np.array(
        [target.log_likelihood(text) - reference.log_likelihood(text, without=text) for text in words]
    )


class _Bigrams:
    """Add-delta smoothed bigram model."""

    def __init__(self, texts: Sequence[Sequence[str]], n_vocabulary: int) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._firsts: Counter[str] = Counter()
        for text in texts:
            self._pairs.update(_pairs(text))
            self._firsts.update(first for first, _ in _pairs(text))
        self._smoothing = _SMOOTHING * n_vocabulary

    def log_likelihood(self, text: Sequence[str], *, without: Sequence[str] = ()) -> float:
        """Returns the mean natural log-likelihood of a word; `without` takes one of its texts out."""
        left = Counter(_pairs(without))
        firsts = Counter(first for first, _ in _pairs(without))
        total = sum(
            log(self._pairs[pair] - left[pair] + _SMOOTHING)
            - log(self._firsts[pair[0]] - firsts[pair[0]] + self._smoothing)
            for pair in _pairs(text)
        )
        return total / max(1, len(text))


def _pairs(text: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip((_START, *text), text, strict=False))


# --- facts ----------------------------------------------------------------------------------------


def fact_exact(facts: Sequence[Fact], synthetic: Sequence[str]) -> FloatVector:
    """Returns how many of place, number and hidden value stand together in one released text, of three."""
    words = [frozenset(words_of(text)) for text in synthetic]
    tuples = [(fact.place.lower(), str(fact.number), fact.value) for fact in facts]
    return np.array(
        [max((sum(part in text for part in parts) for text in words), default=0) / 3 for parts in tuples],
        dtype=np.float64,
    )


def fact_fuzzy(facts: Sequence[Fact], synthetic: Sequence[str]) -> FloatVector:
    """Returns the mean likeness of place and hidden value to their likest words in the release."""
    places = likeness([fact.place.lower() for fact in facts], synthetic)
    values = likeness([fact.value for fact in facts], synthetic)
    return (places + values) / 2


def likeness(names: Sequence[str], synthetic: Sequence[str]) -> FloatVector:
    """Returns the highest cosine of each name's runs of two to four letters to those of a released word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    released = sorted({word for text in synthetic for word in words_of(text)})
    if not released:
        return np.zeros(len(names))
    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit([*names, *released])
    return _highest(vectoriser.transform(names) @ vectoriser.transform(released).T)
