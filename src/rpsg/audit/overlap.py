"""Scores of a private text by what it shares with the release: rare words, runs of words, nearest texts.

All are higher for what the release resembles, and none knows who is a member: how rare something is is
counted over the whole pool and the public texts, the scored text itself left out.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Union

import numpy as np

from rpsg.audit.pool import FloatVector, Pool
from rpsg.audit.similarity import LsaEmbedder, fit_tfidf
from rpsg.text import words_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Vectors = Union[FloatVector, "csr_matrix"]
LENGTHS = (1, 2, 3, 5)
N_NEAREST = 5
_BLOCK = 1000


def overlap_scores(pool: Pool, synthetic: Sequence[str], public: Sequence[str]) -> Mapping[str, FloatVector]:
    """Returns attack to one score a text of the pool.

    `ngram_overlap_n`: share of a text's runs of n words, weighted by their rarity, that occur in the release.
    `rare_ngram_n`: how many runs of n words that no other text of the pool and no public text has do so,
    divided by the square root of the text's length, so that long texts do not win by length alone.
    """
    found: dict[str, FloatVector] = {}
    longest = max((len(words_of(text)) for text in pool.texts), default=0)
    for length in LENGTHS:
        if longest < length:
            for kind in ("ngram_overlap", "rare_ngram"):
                found[f"{kind}_{length}"] = np.zeros(len(pool.texts))
            continue
        counts, released, n_known = _ngrams(pool.texts, synthetic, public, length)
        # How many other known texts have it.
        others = n_known[None, counts.indices].ravel() - 1
        weight = np.log((len(pool.texts) + len(public)) / np.maximum(others, 0.5))
        rows = np.repeat(np.arange(len(pool.texts)), np.diff(counts.indptr))
        is_hit = released[counts.indices]
        total = np.bincount(rows, weights=weight, minlength=len(pool.texts))
        hits = np.bincount(rows, weights=weight * is_hit, minlength=len(pool.texts))
        n_rare = np.bincount(rows, weights=is_hit & (others <= 0), minlength=len(pool.texts))
        found[f"ngram_overlap_{length}"] = hits / np.maximum(total, 1e-9)
        found[f"rare_ngram_{length}"] = n_rare / np.sqrt(np.maximum(np.diff(counts.indptr), 1))
    return found


def _ngrams(
    texts: Sequence[str], synthetic: Sequence[str], public: Sequence[str], length: int
) -> "tuple[csr_matrix, np.ndarray, np.ndarray]":
    """Returns which text has which run, which runs were released, and how many known texts have each."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectoriser = CountVectorizer(analyzer=lambda text: _runs(text, length), binary=True, dtype=np.int32)
    counts = vectoriser.fit_transform(texts)
    known = np.asarray(counts.sum(axis=0)).ravel()
    if public:
        known = known + np.asarray(vectoriser.transform(public).sum(axis=0)).ravel()
    released = np.asarray(vectoriser.transform(synthetic).sum(axis=0)).ravel() > 0
    return counts.tocsr(), released, known


def _runs(text: str, length: int) -> list[str]:
    words = words_of(text)
    return [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]


def nearest_scores(
    private: Vectors, released: Vectors, *, n_nearest: int = N_NEAREST
) -> tuple[FloatVector, FloatVector]:
    """Returns the highest cosine to a released text, and the mean of the highest five.

    Args:
        private: unit vectors, shape (n, d), dense or sparse.
        released: unit vectors, shape (m, d), likewise.
        n_nearest: how many the mean is over.
    """
    n, k = private.shape[0], min(n_nearest, released.shape[0])
    highest, means = np.empty(n), np.empty(n)
    for start in range(0, n, _BLOCK):
        product = private[start : start + _BLOCK] @ released.T
        cosines = product if isinstance(product, np.ndarray) else product.toarray()
        top = np.partition(cosines, -k, axis=1)[:, -k:]
        highest[start : start + _BLOCK] = top.max(axis=1)
        means[start : start + _BLOCK] = top.mean(axis=1)
    return highest, means


def word_vectors(
    pool: Pool, synthetic: Sequence[str], public: Sequence[str]
) -> dict[str, tuple[Vectors, Vectors]]:
    """Returns unit vectors of private and released texts made without any neural embedder.

    `tfidf` weighs single words; `lsa` reduces these to at most 200 dimensions, so that texts on one matter
    are near in other words too. Both are fitted on the pool and the public texts.
    """
    words = fit_tfidf([*pool.texts, *public])
    lsa = LsaEmbedder.fit([*pool.texts, *public], seed=pool.seed % 2**31)
    return {
        "tfidf": (words.transform(pool.texts), words.transform(synthetic)),
        "lsa": (lsa.embed(pool.texts), lsa.embed(synthetic)),
    }
