"""Selection: one summary of each seed, chosen with noise (paper, section 2, step 3).

The utility of a candidate is bounded and does not depend on the other candidates:

    u = 0.75 s + 0.25 a,   s = clip((cos(seed, candidate) - c0) / (c1 - c0), 0, 1)

with c0, c1 public constants of the embedder and a = 1 when candidate and seed have the same
sentiment, 0 when they do not, 0.5 when the seed has none. There is no gate and no second attempt.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from rpsg.llm.wrappers import require_local
from rpsg.types import Embedder, FloatArray, PrivateAbstraction, PrivateRecord, Sentiment, SentimentModel

ALPHA = 0.75
NO_LABEL = 0.5


def utilities(
    records: Sequence[PrivateRecord],
    candidates: Mapping[str, Sequence[PrivateAbstraction]],
    *,
    vectors: Mapping[str, FloatArray],
    embedder: Embedder,
    sentiment: SentimentModel | None,
) -> list[list[float]]:
    """Scores the candidates of each record.

    Args:
        records: the seeds that have candidates.
        candidates: record id to its summaries.
        vectors: abstraction id to unit vector.
        embedder: a local model; its `cosine_range` is (c0, c1).
        sentiment: a local model, or None: then a = 0.5 for all.

    Returns:
        One list a record, one value in [0, 1] a candidate.
    """
    require_local(embedder.name, embedder.trust, task="selection")
    low, high = embedder.cosine_range
    sources = embedder.embed([record.text for record in records])
    agreements = _agreements(records, candidates, sentiment)
    scores: list[list[float]] = []
    for record, source, agree in zip(records, sources, agreements, strict=True):
        block = np.stack([vectors[item.abstraction_id] for item in candidates[record.record_id]])
        nearness = np.clip((block @ source - low) / (high - low), 0.0, 1.0)
        scores.append([float(ALPHA * s + (1 - ALPHA) * a) for s, a in zip(nearness, agree, strict=True)])
    return scores


def _agreements(
    records: Sequence[PrivateRecord],
    candidates: Mapping[str, Sequence[PrivateAbstraction]],
    sentiment: SentimentModel | None,
) -> list[list[float]]:
    if sentiment is None:
        return [[NO_LABEL] * len(candidates[record.record_id]) for record in records]
    require_local(sentiment.name, sentiment.trust, task="selection")
    seeds = sentiment.classify([record.text for record in records])
    texts = [item.text for record in records for item in candidates[record.record_id]]
    judged = iter(sentiment.classify(texts))
    return [
        [_agreement(seed, next(judged)) for _ in candidates[record.record_id]]
        for record, seed in zip(records, seeds, strict=True)
    ]


def _agreement(seed: Sentiment, candidate: Sentiment) -> float:
    if seed.label == "neutral":
        return NO_LABEL
    return 1.0 if candidate.label == seed.label else 0.0
