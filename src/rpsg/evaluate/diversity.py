"""How different the texts of a set are from each other, and how many are not texts at all.

n-grams are in `ngrams`, near duplicates in `duplicates`. Shares of different words or n-grams fall, and
shares of repeats rise, with the number of texts: all are computed on equally many texts of every data set.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rpsg.evaluate.duplicates import near_duplicate_pairs
from rpsg.evaluate.ngrams import GramCounts, bleu_against_others, count_ngrams, ms_jaccard
from rpsg.evaluate.resampling import Figure, IntArray, Rows, collect, draw_halves, half_size, map_draws
from rpsg.scores import Comparison, Metric, Score
from rpsg.text import flaw_of, words_of

OPENING_WORDS = 3
JUDGED = ("synthetic", "holdout", "baseline")


def share_distinct(texts: Sequence[str]) -> float:
    """Share of texts that differ from every other by more than case and punctuation."""
    return len({" ".join(words_of(text)) for text in texts}) / len(texts)


def share_same_opening(texts: Sequence[str], *, n_words: int = 6) -> float:
    """Largest share of texts that begin with the same words."""
    openings = Counter(" ".join(words_of(text)[:n_words]) for text in texts)
    return max(openings.values()) / len(texts)


def share_flawed(texts: Sequence[str]) -> float:
    """Share of texts that talk about the task, break off, or hold leftover tags."""
    return sum(flaw_of(text, min_words=1) in {"meta text", "cut off", "empty"} for text in texts) / len(texts)


def length_ratio(real: Sequence[str], synthetic: Sequence[str]) -> float:
    """Median length of synthetic texts over median length of real ones, in words."""
    ours = statistics.median(len(text.split()) for text in synthetic)
    return ours / statistics.median(len(text.split()) for text in real)


# --- the same on equal numbers of texts -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramMetric:
    """Self-BLEU, distinct-n and MS-Jaccard of words."""

    name: str = field(default="ngrams", init=False)
    family: str = field(default="diversity", init=False)

    def score(self, comparison: Comparison) -> list[Score]:
        """Returns the figures, with interval, reference and baseline."""
        sets = _texts_of(comparison)
        tables = count_ngrams([words_of(text) for texts in sets.values() for text in texts])
        starts = _starts_of(sets)
        size = half_size(comparison)

        def compute(_: int, rows: Rows) -> dict[str, tuple[float, ...]]:
            real = [table.of(rows.real + starts["real"]).rates() for table in tables]
            found = {}
            for name in JUDGED:
                part = [table.of(_rows_of(rows, name) + starts[name]) for table in tables]
                found[name] = _ngram_figures(part, real)
            return found

        return collect(
            _NGRAM_FIGURES, map_draws(compute, draw_halves(comparison, self.name, size=size)), n=size
        )


_NGRAM_FIGURES = (
    Figure(name="self_bleu", better="reference", low=0, high=1, uses_private=False),
    Figure(name="distinct_1", better="reference", low=0, high=1, uses_private=False),
    Figure(name="distinct_2", better="reference", low=0, high=1, uses_private=False),
    Figure(name="distinct_3", better="reference", low=0, high=1, uses_private=False),
    Figure(name="ms_jaccard", better="higher", low=0, high=1),
)


def _ngram_figures(part: Sequence[GramCounts], real: Sequence[npt.NDArray[np.float64]]) -> tuple[float, ...]:
    return (
        float(bleu_against_others(part).mean()),
        *(table.share_distinct() for table in part[:3]),
        ms_jaccard(real, [table.rates() for table in part]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceMetric:
    """Repeats, openings, meta text, lengths and vocabulary."""

    name: str = field(default="surface", init=False)
    family: str = field(default="diversity", init=False)

    def score(self, comparison: Comparison) -> list[Score]:
        """Returns the figures, with interval, reference and baseline."""
        sets = {name: _Surface.of(texts) for name, texts in _texts_of(comparison).items()}
        size = half_size(comparison)

        def compute(_: int, rows: Rows) -> dict[str, tuple[float, ...]]:
            real = sets["real"]
            return {
                name: _surface_figures(sets[name], _rows_of(rows, name), real, rows.real) for name in JUDGED
            }

        draws = map_draws(compute, draw_halves(comparison, self.name, size=size))
        return collect(_SURFACE_FIGURES, draws, n=size)


_SURFACE_FIGURES = (
    Figure(name="duplicates", better="lower", low=0, high=1, uses_private=False, is_share=True),
    Figure(name="near_duplicates", better="lower", low=0, high=1, uses_private=False, is_share=True),
    Figure(name="repeated_openings", better="reference", low=0, high=1, uses_private=False, is_share=True),
    Figure(name="meta_text", better="lower", low=0, high=1, uses_private=False, is_share=True),
    Figure(name="median_words", better="reference", low=0, uses_private=False),
    Figure(name="length_distance", better="lower", low=0),
    Figure(name="vocabulary", better="reference", low=0, uses_private=False),
    Figure(name="unseen_words", better="reference", low=0, high=1),
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Surface:
    """What is computed once a data set; draws only count.

    Attributes:
        keys: number of each text's wording, equal for equal texts.
        openings: number of each text's first words.
        pairs: near duplicates, shape (n_pairs, 2).
        is_meta: texts that are not texts.
        lengths: words of each text.
        words: words of each text, as sets.
    """

    keys: IntArray
    openings: IntArray
    pairs: IntArray
    is_meta: npt.NDArray[np.bool_]
    lengths: IntArray
    words: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Surface":
        words = tuple(tuple(words_of(text)) for text in texts)
        return cls(
            keys=_number([" ".join(part) for part in words]),
            openings=_number([" ".join(part[:OPENING_WORDS]) for part in words]),
            pairs=near_duplicate_pairs(texts),
            is_meta=np.array([flaw_of(text, min_words=1) in {"meta text", "empty"} for text in texts]),
            lengths=np.array([len(part) for part in words], dtype=np.int64),
            words=words,
        )


def _surface_figures(
    ours: _Surface, rows: IntArray, real: _Surface, real_rows: IntArray
) -> tuple[float, ...]:
    from scipy.stats import wasserstein_distance

    chosen = np.zeros(len(ours.keys), dtype=bool)
    chosen[rows] = True
    near = ours.pairs[chosen[ours.pairs].all(axis=1)]
    known = {word for i in real_rows for word in real.words[i]}
    used = Counter(word for i in rows for word in ours.words[i])
    n_used = max(1, used.total())
    return (
        _share_repeated(ours.keys[rows]),
        len(np.unique(near)) / len(rows),
        _share_repeated(ours.openings[rows]),
        float(ours.is_meta[rows].mean()),
        float(np.median(ours.lengths[rows])),
        float(wasserstein_distance(ours.lengths[rows], real.lengths[real_rows])),
        float(len(used)),
        sum(count for word, count in used.items() if word not in known) / n_used,
    )


def _share_repeated(keys: IntArray) -> float:
    _, found, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return float(np.mean(counts[found] > 1))


def _number(values: Sequence[str]) -> IntArray:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _texts_of(comparison: Comparison) -> Mapping[str, tuple[str, ...]]:
    return {
        "real": comparison.real.texts,
        "holdout": comparison.holdout.texts,
        "synthetic": comparison.synthetic.texts,
        "baseline": comparison.baseline.texts,
    }


def _rows_of(rows: Rows, name: str) -> IntArray:
    return {"synthetic": rows.synthetic, "holdout": rows.holdout, "baseline": rows.baseline}[name]


def _starts_of(sets: Mapping[str, Sequence[str]]) -> dict[str, int]:
    ends = np.cumsum([len(texts) for texts in sets.values()]).tolist()
    return dict(zip(sets, [0, *ends], strict=False))


def diversity_metrics() -> list[Metric]:
    """Returns every metric on the texts themselves."""
    return [NgramMetric(), SurfaceMetric()]
