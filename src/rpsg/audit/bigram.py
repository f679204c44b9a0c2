"""A bigram model of the release against bigram models of other texts (Meeus et al. 2025)."""

from collections import Counter
from collections.abc import Sequence
from math import log

import numpy as np

from rpsg.audit.pool import FloatVector, Pool
from rpsg.rng import Streams
from rpsg.text import words_of

N_REFERENCES = 8
_ADDED = 0.01
_START = ""


def bigram_scores(pool: Pool, synthetic: Sequence[str], *, n_references: int = N_REFERENCES) -> FloatVector:
    """Returns, per text, log p(text | release) minus its mean under reference models, per word.

    Bigram models with additive smoothing over one vocabulary. A text's reference models are trained on random
    subsets, as many words as the release has or all there are, of the half of the pool that the text is not
    in; the halves are drawn blind to membership.
    """
    words = [words_of(text) for text in pool.texts]
    released = [words_of(text) for text in synthetic]
    n_vocabulary = len({word for text in (*words, *released) for word in text})
    target = Bigrams(released, n_vocabulary)
    half = pool.halves("bigram")
    scores = np.empty(len(words))
    for side in (False, True):
        scored, others = np.flatnonzero(half == side), np.flatnonzero(half != side)
        rng = Streams(pool.seed).get("bigram references", int(side))
        references = [
            Bigrams(_subset([words[i] for i in rng.permutation(others)], released), n_vocabulary)
            for _ in range(n_references)
        ]
        for i in scored:
            reference = np.mean([model.log_likelihood(words[i]) for model in references])
            scores[i] = target.log_likelihood(words[i]) - float(reference)
    return scores


def _subset(texts: list[list[str]], like: Sequence[list[str]]) -> list[list[str]]:
    # At most half, so that references differ from each other.
    wanted, chosen = sum(map(len, like)), []
    for text in texts[: max(1, len(texts) // 2)]:
        chosen.append(text)
        wanted -= len(text)
        if wanted <= 0:
            break
    return chosen


class Bigrams:
    """Add-delta smoothed bigram model of some texts, given as words."""

    def __init__(self, texts: Sequence[Sequence[str]], n_vocabulary: int) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._firsts: Counter[str] = Counter()
        for text in texts:
            self._pairs.update(_pairs(text))
            self._firsts.update(first for first, _ in _pairs(text))
        self._smoothing = _ADDED * n_vocabulary

    def log_likelihood(self, text: Sequence[str], *, without: Sequence[str] = ()) -> float:
        """Returns the mean natural log-likelihood of a word; `without` takes one of the model's texts out."""
        pairs = Counter(_pairs(without))
        firsts = Counter(first for first, _ in _pairs(without))
        total = sum(
            log(
                (self._pairs[pair] - pairs[pair] + _ADDED)
                / (self._firsts[pair[0]] - firsts[pair[0]] + self._smoothing)
            )
            for pair in _pairs(text)
        )
        return total / max(1, len(text))


def _pairs(text: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip((_START, *text), text, strict=False))
