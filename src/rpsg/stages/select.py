"""Selection: one summary of each seed, chosen with noise (paper, section 2, step 3).

The utility of a candidate is bounded and does not depend on the other candidates:

    u = 0.75 s + 0.25 a,   s = clip((cos(seed, candidate) - c0) / (c1 - c0), 0, 1)

with c0, c1 public constants of the embedder and a = 1 when candidate and seed have the same
sentiment, 0 when they do not, 0.5 when the seed has none. There is no gate and no second attempt.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rpsg.llm.wrappers import require_local
from rpsg.types import FloatArray, PrivateAbstraction, PrivateRecord, SentimentModel

ALPHA = 0.75
NO_LABEL = 0.5
NEUTRAL = "neutral"


def utilities(
    records: Sequence[PrivateRecord],
    candidates: Mapping[str, Sequence[PrivateAbstraction]],
    *,
    vectors: Mapping[str, FloatArray],
    cosine_range: tuple[float, float],
    tones: Mapping[str, str],
    sentiment: SentimentModel | None,
) -> dict[str, list[float]]:
    """Scores the candidates of each record.

    Args:
        records: the seeds that have candidates.
        candidates: record id to its summaries.
        vectors: record id and abstraction id to unit vector.
        cosine_range: (c0, c1) of the embedder.
        tones: record id to sentiment of all of its text; neutral or absent means no label.
        sentiment: a local model, or None: then a = 0.5 for all.

    Returns:
        Record id to one value in [0, 1] a candidate.
    """
    low, high = cosine_range
    texts = [item.text for record in records for item in candidates[record.record_id]]
    judged: Iterator[str] = iter([""] * len(texts))
    if sentiment is not None:
        require_local(sentiment.name, sentiment.trust, task="selection")
        judged = (found.label for found in sentiment.classify(texts))
    scores: dict[str, list[float]] = {}
    for record in records:
        own = candidates[record.record_id]
        block = np.stack([vectors[item.abstraction_id] for item in own])
        nearness = np.clip((block @ vectors[record.record_id] - low) / (high - low), 0.0, 1.0)
        tone = tones.get(record.record_id, NEUTRAL)
        agree = [_agreement(tone, next(judged)) for _ in own]
        scores[record.record_id] = [
            float(ALPHA * s + (1 - ALPHA) * a) for s, a in zip(nearness, agree, strict=True)
        ]
    return scores


def _agreement(seed: str, candidate: str) -> float:
    if seed == NEUTRAL or not candidate:
        return NO_LABEL
    return 1.0 if candidate == seed else 0.0
