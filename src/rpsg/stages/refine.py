"""Refinement: what may be released (paper, section 2, step 7).

Personal details are removed, then a text is dropped when it is not a usable text, copies private
words, lies closer to a private text than held-out private texts do, or is as likely under a
surrogate model as its own seed. Thresholds are set once, on calibration records that never seed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rpsg.config import RefineConfig
from rpsg.llm.language import detect_languages
from rpsg.llm.redact import contains_detail, generalise_money, redact
from rpsg.rng import Streams
from rpsg.text import MIN_WORDS, WordRuns, flaw_of, words_of
from rpsg.types import (
    Candidate,
    Embedder,
    FloatArray,
    LikelihoodModel,
    PiiDetector,
    PrivateVariant,
    Rejection,
)
from rpsg.vectors import VectorRows

STAGE = "refine"
CALIBRATION_MIN = 40
REPRESENTATIVES = 250
# Types whose private values must not appear in a release in any form.
STRICT_TYPES = frozenset({"EMAIL", "PHONE", "ADDRESS", "ID", "USERNAME", "ORG", "PERSON", "DATE_OF_BIRTH"})
_BLOCK = 4096
_NEAR_DUPLICATE = 0.5
_SHINGLE = 8
_ANY_LANGUAGE = ""

Values = npt.NDArray[np.float64]
Text = TypeVar("Text", PrivateVariant, Candidate)


def max_cosine(vectors: FloatArray, others: VectorRows) -> Values:
    """Returns each vector's largest cosine to any of `others`, in blocks; -1 where there is none."""
    best = np.full(len(vectors), -1.0)
    for start in range(0, len(others), _BLOCK):
        block = vectors @ others[np.arange(start, min(start + _BLOCK, len(others)))].T
        best = np.maximum(best, block.max(axis=1))
    return best


def similarity_threshold(calibration: FloatArray, seeds: VectorRows, *, quantile: float) -> float:
    """Returns the cosine above which a text is closer to private texts than held-out ones are.

    The ceil((n + 1) q)-th smallest of the n calibration records' largest cosines to the seeds: a
    fresh record exceeds it with probability at most 1 - q (split conformal). Infinite when n is too
    small for the quantile.
    """
    largest = np.sort(max_cosine(calibration, seeds))
    rank = math.ceil((len(largest) + 1) * quantile)
    return float(largest[rank - 1]) if rank <= len(largest) else math.inf


def nll_threshold(synthetic: Values, calibration: Values, *, quantile: float) -> float:
    """Returns the gap in NLL below which a text is suspiciously close to its seed.

    The quantile of |NLL(s) - NLL(c)| over all pairs of a synthetic text s and a calibration record c.
    """
    return float(np.quantile(np.abs(synthetic[:, None] - calibration[None]), quantile))


def representative_gaps(values: Values, private: Values) -> Values:
    """Returns each value's gap to the nearest of 250 quantile representatives of the private NLLs."""
    representatives = np.quantile(private, (np.arange(REPRESENTATIVES) + 0.5) / REPRESENTATIVES)
    gaps: Values = np.abs(values[:, None] - representatives[None]).min(axis=1)
    return gaps


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateContext:
    """What refinement knows of the private texts.

    Attributes:
        runs: all word runs of all private texts.
        details: exact personal details found in them.
        seeds: unit vectors of the records that may be seeds, shape (n, d).
        calibration: unit vectors of the calibration records, shape (m, d).
        seed_nll: record id to NLL under the surrogate.
        calibration_nll: NLLs of the calibration records, shape (m,).
    """

    runs: WordRuns
    details: frozenset[str]
    seeds: VectorRows
    calibration: FloatArray
    seed_nll: Mapping[str, float]
    calibration_nll: Values

    @classmethod
    def nothing(cls) -> "PrivateContext":
        """Knows of no private text: what a refinery needs that must read synthetic and public text only."""
        none = np.empty((0, 1), dtype=np.float32)
        return cls(
            runs=WordRuns.build([], 1),
            details=frozenset(),
            seeds=none,
            calibration=none,
            seed_nll={},
            calibration_nll=np.empty(0),
        )


class Refinery:
    """The filters of one run, with their thresholds. Call `refine` once for every batch of texts."""

    def __init__(
        self,
        context: PrivateContext,
        *,
        config: RefineConfig,
        embedder: Embedder,
        surrogate: LikelihoodModel | None,
        pii: PiiDetector | None,
        languages: Sequence[str],
        streams: Streams,
    ) -> None:
        self._context = context
        self._config = config
        self._embedder = embedder
        self._surrogate = surrogate
        self._pii = pii
        self._languages = {_ANY_LANGUAGE, *languages}
        self._streams = streams
        self._shingles: set[tuple[str, ...]] = set()
        self._nll_threshold: float | None = None
        self.notes = _notes(config, len(context.calibration))
        enough = len(context.calibration) >= CALIBRATION_MIN
        self._similarity = config.similarity.enabled and enough
        self._nll = config.nll.enabled and enough and surrogate is not None
        self._similarity_threshold = (
            similarity_threshold(context.calibration, context.seeds, quantile=config.similarity.quantile)
            if self._similarity
            else math.inf
        )

    def refine(self, variants: Sequence[Text]) -> tuple[list[Text], list[Rejection]]:
        """Cleans texts of personal details and drops those that must not be released.

        Args:
            variants: candidates for release.

        Returns:
            The accepted texts, in order, and one rejection a dropped text.
        """
        cleaned = self._remove_details(variants)
        reasons = self._flaws(cleaned)
        kept = [i for i, reason in enumerate(reasons) if reason is None]
        self._mark_similar(cleaned, kept, reasons)
        kept = [i for i, reason in enumerate(reasons) if reason is None]
        self._mark_likely(cleaned, kept, reasons)
        accepted = []
        for i, variant in enumerate(cleaned):
            if reasons[i] is None and self._is_duplicate(variant.text):
                reasons[i] = "duplicate"
            if reasons[i] is None:
                self._shingles |= _shingles(variant.text)
                accepted.append(variant)
        rejected = [
            Rejection(item_id=variant.variant_id, record_id=variant.record_id, stage=STAGE, reason=reason)
            for variant, reason in zip(variants, reasons, strict=True)
            if reason is not None
        ]
        return accepted, rejected

    def _remove_details(self, variants: Sequence[Text]) -> list[Text]:
        if self._pii is None:
            return list(variants)
        config = self._config.pii
        found = self._pii.find([variant.text for variant in variants])
        cleaned = []
        for variant, spans in zip(variants, found, strict=True):
            rng = self._streams.get("redact", variant.variant_id)
            text = redact(variant.text, spans, style=config.replace, rng=rng)
            cleaned.append(replace(variant, text=generalise_money(text) if config.money else text))
        return cleaned

    def _flaws(self, variants: Sequence[Text]) -> list[str | None]:
        texts = [variant.text for variant in variants]
        spoken = detect_languages(texts)
        reasons = []
        for text, language in zip(texts, spoken, strict=True):
            reason = flaw_of(text, min_words=MIN_WORDS)
            if reason is None and language not in self._languages:
                reason = "language"
            if reason is None and self._context.runs.shared_with(text):
                reason = "copied run"
            if reason is None and any(contains_detail(text, detail) for detail in self._context.details):
                reason = "personal detail"
            reasons.append(reason)
        return reasons

    def _mark_similar(self, variants: Sequence[Text], kept: Sequence[int], reasons: list[str | None]) -> None:
        if not self._similarity or not kept:
            return
        vectors = self._embedder.embed([variants[i].text for i in kept])
        nearest = max_cosine(vectors, self._context.seeds)
        for i, value in zip(kept, nearest, strict=True):
            if value > self._similarity_threshold:
                reasons[i] = "similarity"

    def _mark_likely(self, variants: Sequence[Text], kept: Sequence[int], reasons: list[str | None]) -> None:
        if not self._nll or self._surrogate is None or not kept:
            return
        config, context = self._config.nll, self._context
        values = self._surrogate.nll([variants[i].text for i in kept])
        private = np.asarray(list(context.seed_nll.values()))
        if config.rule == "seed":
            if self._nll_threshold is None:
                self._nll_threshold = nll_threshold(values, context.calibration_nll, quantile=config.quantile)
            gaps = np.abs(values - np.asarray([context.seed_nll[variants[i].record_id] for i in kept]))
        else:
            if self._nll_threshold is None:
                usual = representative_gaps(context.calibration_nll, private)
                self._nll_threshold = float(np.quantile(usual, config.quantile))
            gaps = representative_gaps(values, private)
        for i, gap in zip(kept, gaps, strict=True):
            if gap < self._nll_threshold:
                reasons[i] = "likelihood"

    def _is_duplicate(self, text: str) -> bool:
        own = _shingles(text)
        return len(own & self._shingles) > _NEAR_DUPLICATE * len(own)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsualTexts:
    """Keeps texts whose likelihood is usual among synthetic texts; reads synthetic texts only.

    What is far likelier than the rest is boilerplate, what is far less likely is broken. Each text is judged
    by a surrogate that was not trained on it: a small model knows its own texts, and would find every other
    text strange.

    Attributes:
        surrogates: each trained on one half of the synthetic texts.
        first_half: ids of the candidates that the first was trained on.
        low: NLL per token below which a text is dropped.
        high: NLL per token above which it is.
    """

    surrogates: tuple[LikelihoodModel, LikelihoodModel]
    first_half: frozenset[str]
    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def measure(
        cls,
        candidates: Sequence[Candidate],
        *,
        train: Callable[[Sequence[str]], LikelihoodModel],
        quantile: float,
    ) -> "UsualTexts":
        """Sets limits outside which a share `quantile` of these candidates lies, half on each side."""
        halves = candidates[::2], candidates[1::2]
        first, second = (train([item.text for item in half]) for half in halves)
        usual = cls(surrogates=(first, second), first_half=frozenset(item.variant_id for item in halves[0]))
        low, high = np.quantile(usual._nll(candidates), [quantile / 2, 1 - quantile / 2])
        return replace(usual, low=float(low), high=float(high))

    def keep(self, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Rejection]]:
        """Returns the candidates within the limits, in order, and one rejection for each other."""
        values = self._nll(candidates)
        usual = (values >= self.low) & (values <= self.high)
        kept = [item for item, fits in zip(candidates, usual, strict=True) if fits]
        rejected = [
            Rejection(item_id=item.variant_id, record_id=item.record_id, stage=STAGE, reason="likelihood")
            for item, fits in zip(candidates, usual, strict=True)
            if not fits
        ]
        return kept, rejected

    def _nll(self, candidates: Sequence[Candidate]) -> Values:
        values = np.empty(len(candidates))
        known = np.asarray([item.variant_id in self.first_half for item in candidates], dtype=bool)
        for surrogate, mine in zip(self.surrogates, (~known, known), strict=True):
            places = np.flatnonzero(mine).tolist()
            values[places] = surrogate.nll([candidates[i].text for i in places])
        return values


def private_details(texts: Sequence[str], detector: PiiDetector) -> list[frozenset[str]]:
    """Collects the exact personal details of strict types in each private text.

    Of names only those of two or more words count: a first name alone is not one person's.
    """
    found = []
    for text, spans in zip(texts, detector.find(texts), strict=True):
        details = set()
        for span in spans:
            value = text[span.start : span.end].strip()
            full = span.type not in {"PERSON", "ORG"} or len(value.split()) > 1
            if span.type in STRICT_TYPES and full and len(value) > 3:
                details.add(value)
        found.append(frozenset(details))
    return found


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    last = max(1, len(words) - _SHINGLE + 1)
    return {tuple(words[start : start + _SHINGLE]) for start in range(last)}


def _notes(config: RefineConfig, n_calibration: int) -> tuple[str, ...]:
    wanted = config.similarity.enabled or config.nll.enabled
    if wanted and n_calibration < CALIBRATION_MIN:
        return (
            f"similarity and likelihood filters are off: they need {CALIBRATION_MIN} calibration "
            f"records, and there are {n_calibration}",
        )
    return ()
