"""Which known text is a released text most like: by weighted words, or by an embedder."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from rpsg.errors import DataError
from rpsg.text import normalised_words
from rpsg.types import FloatArray, Trust

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

Matrix = npt.NDArray[np.float32]
Vectors: TypeAlias = "FloatArray | csr_matrix"
_BLOCK = 1024


def fit_tfidf(texts: Sequence[str]) -> "TfidfVectorizer":
    """Returns weights of words, fitted on texts; its vectors have length 1, or 0 without a known word.

    Raises:
        DataError: no text holds a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(normalised_words(text) for text in texts):
        raise DataError(f"none of {len(texts)} known texts holds a word; name the column with the texts")
    return TfidfVectorizer(analyzer=normalised_words, sublinear_tf=True, dtype=np.float32).fit(texts)


class LsaEmbedder:
    """Latent semantic analysis (Deerwester et al. 1990): TF-IDF in its leading singular directions.

    No neural model, so it is independent of any that a generator may use.
    """

    name = "lsa"
    trust: Trust = "local"
    cosine_range = (0.0, 1.0)

    def __init__(self, words: "TfidfVectorizer", directions: FloatArray) -> None:
        self._words = words
        self._directions = directions

    @classmethod
    def fit(cls, texts: Sequence[str], *, seed: int, dimension: int = 200) -> Self:
        """Fits word weights and directions on texts.

        Args:
            texts: at least two; fit on members and non-members alike, or on neither.
            seed: of the randomised decomposition.
            dimension: directions; no more than there are texts.
        """
        from sklearn.utils.extmath import randomized_svd

        words = fit_tfidf(texts)
        table = words.transform(texts)
        size = max(1, min(dimension, min(table.shape) - 1))
        directions = randomized_svd(table, size, random_state=seed)[2]
        return cls(words, directions.astype(np.float32))

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Returns unit vectors, shape (len(texts), dimension); a text without a known word gets any."""
        table: FloatArray = np.asarray(self._words.transform(texts) @ self._directions.T, dtype=np.float32)
        norms = np.linalg.norm(table, axis=1, keepdims=True)
        table[norms[:, 0] == 0, 0] = 1.0
        norms[norms == 0] = 1.0
        table /= norms
        return table


def cosine_blocks(one: "Vectors", other: "Vectors") -> Iterator[tuple[slice, Matrix]]:
    """Yields rows of `one` and their cosines with all of `other`; the table is never whole.

    Args:
        one: vectors of length 1, dense or sparse.
        other: likewise.
    """
    columns = other.T
    for start in range(0, one.shape[0], _BLOCK):
        rows = slice(start, min(start + _BLOCK, one.shape[0]))
        block = one[rows] @ columns
        yield rows, np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float32)
