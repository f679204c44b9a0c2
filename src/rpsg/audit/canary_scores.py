"""Scores of canaries that use nothing but the released texts and public ones; higher looks more like "in".

Every score is a function of all canaries and the release, never of a coin.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from rpsg.audit.auxiliary import AuxiliarySettings, scores_by_halves
from rpsg.audit.bigram import Bigrams
from rpsg.audit.canary import Canary, Fact, ScoreName
from rpsg.audit.overlap import nearest_scores
from rpsg.audit.pool import FloatVector
from rpsg.audit.similarity import fit_tfidf
from rpsg.audit.wordruns import WordRuns
from rpsg.rng import Streams
from rpsg.text import normalised_words, words_of
from rpsg.types import Embedder

# Canaries are few and short, so a model reads them more often than it would a pool of records. Two references
# are too few for LiRA's spread, so that is left out.
MODELS = AuxiliarySettings(epochs=10, base_epochs=6, n_references=2, n_neighbours=1)


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


def model_scores(
    canaries: Sequence[Canary],
    synthetic: Sequence[str],
    *,
    settings: AuxiliarySettings,
    public: Sequence[str] = (),
    seed: int = 0,
) -> Mapping[ScoreName, FloatVector]:
    """Returns what small language models trained on the release say, each of shape (n_canaries,).

    A base model of the public texts and of a random half of the canaries scores the other half, before and
    after it was trained further on the release (`rpsg.audit.auxiliary`; Mitchell et al. 2026).

    Args:
        canaries: of all kinds.
        synthetic: the released texts.
        settings: size of the models.
        public: texts that the adversary knows and that are no part of the data.
        seed: of the halves and of training.
    """
    streams = Streams(seed)
    half = np.zeros(len(canaries), dtype=bool)
    order = streams.get("canary model halves").permutation(len(canaries))
    half[order[: len(canaries) // 2]] = True
    found = scores_by_halves(
        [canary.text for canary in canaries],
        half,
        synthetic,
        seeds=[streams.key("canary models", side) % 2**31 for side in (0, 1)],
        known=public,
        settings=settings,
    )
    return {name: found[name] for name in get_args(ScoreName) if name in found}


# --- words ----------------------------------------------------------------------------------------


def _nearest(
    texts: Sequence[str], synthetic: Sequence[str], public: Sequence[str], embedder: Embedder | None
) -> FloatVector:
    """Returns the highest cosine to a released text."""
    if embedder is not None:
        return nearest_scores(
            np.asarray(embedder.embed(texts), dtype=np.float64),
            np.asarray(embedder.embed(synthetic), dtype=np.float64),
        )[0]
    words = fit_tfidf([*texts, *synthetic, *public])
    return nearest_scores(words.transform(texts), words.transform(synthetic))[0]


def rare_words(texts: Sequence[str], synthetic: Sequence[str], public: Sequence[str] = ()) -> FloatVector:
    """Returns the largest share of a text's words, weighed by rarity, that one released text has."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(analyzer=normalised_words, binary=True, norm=None)
    vectoriser.fit([*texts, *synthetic, *public])
    weights, released = vectoriser.transform(texts), vectoriser.transform(synthetic)
    released.data[:] = 1.0
    total = np.asarray(weights.sum(axis=1)).ravel()
    shares: FloatVector = nearest_scores(weights, released, n_nearest=1)[0] / np.maximum(total, 1e-9)
    return shares


def longest_runs(texts: Sequence[str], synthetic: Sequence[str]) -> FloatVector:
    """Returns the length in words of the longest run that a text shares with a released one."""
    runs = WordRuns.build(texts, synthetic)
    ours, longest = runs.group == 0, np.zeros(len(texts))
    np.maximum.at(longest, runs.text[ours], runs.longest_in(1, of=ours)[ours])
    return longest


def bigram_ratio(texts: Sequence[str], synthetic: Sequence[str], public: Sequence[str] = ()) -> FloatVector:
    """Returns log p(text | release) - log p(text | known texts), a word (Meeus et al. 2025).

    The known texts are the public ones and the other canaries: a model of them says how usual the text is
    where nothing was released.
    """
    words, released = [words_of(text) for text in texts], [words_of(text) for text in synthetic]
    known = [words_of(text) for text in public]
    n_vocabulary = len({word for text in (*words, *released, *known) for word in text})
    target, reference = Bigrams(released, n_vocabulary), Bigrams([*known, *words], n_vocabulary)
    return np.array(
        [target.log_likelihood(text) - reference.log_likelihood(text, without=text) for text in words]
    )


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
    return nearest_scores(vectoriser.transform(names), vectoriser.transform(released), n_nearest=1)[0]
