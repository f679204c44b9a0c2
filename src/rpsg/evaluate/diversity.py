"""How different the texts of a set are from each other, and how many are not texts at all."""

import statistics
from collections import Counter
from collections.abc import Sequence

from rpsg.text import flaw_of, words_of


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
