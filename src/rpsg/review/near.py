"""Which private texts a synthetic one is nearest to by its words, and which words they share."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from rpsg.text import reveal, word_spans
from rpsg.types import PrivateCorpus

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

N_NEAREST = 3
# A run of so many shared words is marked.
_RUN = 3
# So is a shared word that so few private texts have.
_RARE = 2
_LEAST_LETTERS = 4

Kind = Literal["run", "rare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A piece of a text that another text has too: a run of words, or a word that few texts have."""

    start: int
    end: int
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateNeighbour:
    """A private text near a synthetic one.

    Attributes:
        record_id: its id.
        text: as it is shown.
        similarity: cosine of word weights, 0 to 1.
        marks: what of it the synthetic text has too.
        marks_synthetic: what of the synthetic text it has too.
    """

    record_id: str
    text: str
    similarity: float
    marks: tuple[Mark, ...]
    marks_synthetic: tuple[Mark, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateNeighbours:
    """Finds the private texts nearest to synthetic ones.

    Attributes:
        record_ids: of the private texts.
        texts: as they are shown.
        weights: turns a text into its word weights.
        vectors: the private texts' word weights, sparse, shape (n, words).
        n_texts_with: in how many private texts a word is.
    """

    record_ids: tuple[str, ...]
    texts: tuple[str, ...]
    weights: "TfidfVectorizer"
    vectors: "csr_matrix"
    n_texts_with: Mapping[str, int]

    @classmethod
    def build(cls, private_corpus: PrivateCorpus) -> "PrivateNeighbours":
        """Weighs the words of the private texts."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = tuple(reveal(record.text) for record in private_corpus.records)
        weights = TfidfVectorizer(sublinear_tf=True, tokenizer=_words, token_pattern=None, lowercase=False)
        return cls(
            record_ids=tuple(record.record_id for record in private_corpus.records),
            texts=texts,
            weights=weights,
            vectors=weights.fit_transform(texts),
            n_texts_with=Counter(word for text in texts for word in set(_words(text))),
        )

    def find(self, text: str) -> list[PrivateNeighbour]:
        """Returns the nearest private texts, nearest first, with what they share with this one."""
        similarities = np.asarray((self.vectors @ self.weights.transform([text]).T).todense()).ravel()
        nearest = np.argsort(-similarities, kind="stable")[:N_NEAREST]
        found = []
        for i in nearest.tolist():
            rare = self._rare_words(text, self.texts[i])
            found.append(
                PrivateNeighbour(
                    record_id=reveal(self.record_ids[i]),
                    text=self.texts[i],
                    similarity=round(float(similarities[i]), 3),
                    marks=mark_shared(self.texts[i], text, rare),
                    marks_synthetic=mark_shared(text, self.texts[i], rare),
                )
            )
        return found

    def _rare_words(self, text: str, private_text: str) -> set[str]:
        shared = set(_words(text)) & set(_words(private_text))
        return {
            word
            for word in shared
            if self.n_texts_with[word] <= _RARE and (len(word) >= _LEAST_LETTERS or word.isdigit())
        }


def mark_shared(text: str, other: str, rare: Collection[str]) -> tuple[Mark, ...]:
    """Marks in `text` the runs of three words or more that `other` has too, and the rare words."""
    spans = word_spans(text)
    runs = set(_runs(_words(other)))
    kinds: list[Kind | None] = ["rare" if word in rare else None for word, _, _ in spans]
    for start, run in enumerate(_runs([word for word, _, _ in spans])):
        if run in runs:
            kinds[start : start + _RUN] = ["run"] * _RUN
    marks: list[Mark] = []
    for i, ((_, begin, end), kind) in enumerate(zip(spans, kinds, strict=True)):
        if kind is None:
            continue
        goes_on = i > 0 and kind == kinds[i - 1] == "run"
        marks.append(Mark(start=marks.pop().start if goes_on else begin, end=end, kind=kind))
    return tuple(marks)


def _words(text: str) -> list[str]:
    return [word for word, _, _ in word_spans(text)]


def _runs(words: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(_RUN)), strict=False)
