"""The choice of summaries as the paper's published code makes it, to measure what its defects do.

Read in the code of arXiv 2604.07486 (specification, 4.1 and 4.3): a score that is scaled by the least
and largest of the record's own candidates, so that any change of the record can turn 0 into 1; a gate without
noise; a second try without noise where the first choice has another sentiment; noise from the classical
Gaussian formula, which does not hold at epsilon 4, from a fixed seed. So nothing is guaranteed, and the card
says so. The second try samples as `abstract` is set; the paper's presets set what the published code uses.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rpsg.privacy.card import CHOICE
from rpsg.privacy.plain import NonPrivate
from rpsg.rng import Streams
from rpsg.session import Session
from rpsg.stages.abstract import PrivateAbstractions
from rpsg.stages.select import ALPHA, NEUTRAL, NO_LABEL
from rpsg.stages.variants import Source
from rpsg.steps import source_of, summarise
from rpsg.types import PrivateAbstraction, PrivateRecord, Sentiment

PENALTY = 0.15
GATE = 0.55
_NOTE = "as published: no finite epsilon"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateScore:
    """What the published code knows of a candidate.

    Attributes:
        cosine: to its seed.
        agrees: whether it has the seed's sentiment; None where the seed has none.
        confidence: of its sentiment.
    """

    cosine: float
    agrees: bool | None
    confidence: float

    @property
    def value(self) -> float:
        """0.75 cos + 0.25 agree - 0.15 (1 - agree); agree is 0.5, and costs nothing, without a label."""
        if self.agrees is None:
            return ALPHA * self.cosine + (1 - ALPHA) * NO_LABEL
        return ALPHA * self.cosine + ((1 - ALPHA) if self.agrees else -PENALTY)


def published_sigma(nominal_epsilon: float, n_seeds: int) -> float:
    """Returns sqrt(2 ln(1.25 / delta)) / epsilon with delta = 1 / (N ln N), N the number of seeds."""
    n = max(2, n_seeds)
    return math.sqrt(2 * math.log(1.25 * n * math.log(n))) / nominal_epsilon


def pick(scores: Sequence[PrivateScore], sigma: float, rng: np.random.Generator) -> int:
    """Returns the noisy best: of those that pass the gate, if any, scaled to [0, 1] by their own range."""
    gated = [i for i, item in enumerate(scores) if item.agrees and item.confidence >= GATE]
    usable = gated or list(range(len(scores)))
    values = np.asarray([scores[i].value for i in usable])
    spread = float(values.max() - values.min())
    scaled = (values - values.min()) / spread if spread > 0 else np.zeros(len(values))
    return usable[int(np.argmax(scaled + rng.normal(scale=sigma, size=len(values))))]


def choose_published(session: Session, seeds: Sequence[PrivateRecord], *, label: str) -> dict[str, Source]:
    """Summarises each seed and chooses one summary as published; see `rpsg.steps.choose`."""
    first = summarise(session, seeds, session.streams)
    session.reject(first.rejected)
    usable = [record for record in seeds if record.record_id in first.candidates]
    sigma = published_sigma(session.config.published.nominal_epsilon, len(seeds))
    scores = _scores(session, usable, first)
    chosen = {name: pick(own, sigma, session.streams.get("published", name)) for name, own in scores.items()}
    again = [r for r in usable if scores[r.record_id][chosen[r.record_id]].agrees is False]
    second = summarise(session, again, Streams(session.streams.key("published second try")))
    more = _scores(session, [r for r in again if r.record_id in second.candidates], second)
    candidates = {name: list(items) for name, items in first.candidates.items()}
    for name, own in more.items():
        other = pick(own, sigma, session.streams.get("published again", name))
        if _rank(own[other]) > _rank(scores[name][chosen[name]]):
            chosen[name] = len(candidates[name]) + other
        candidates[name] += second.candidates[name]
    session.counts["seeds"] += len(seeds)
    session.counts["second tries"] += len(again)
    return _release(session, label, usable, candidates, chosen)


def _rank(score: PrivateScore) -> tuple[bool, float, float]:
    return bool(score.agrees), score.confidence, score.cosine


def _release(
    session: Session,
    label: str,
    usable: Sequence[PrivateRecord],
    candidates: Mapping[str, Sequence[PrivateAbstraction]],
    chosen: Mapping[str, int],
) -> dict[str, Source]:
    nominal = session.config.published.nominal_epsilon
    reason = f"choice as published, noise of nominal epsilon {nominal:g} from a seed"
    drawn = session.ledger.release(f"{CHOICE}, {label}", NonPrivate(reason=reason), dict(chosen), note=_NOTE)
    assert isinstance(drawn, dict)
    session.tell(f"choice {label}", 1, 1)
    return {
        record.record_id: source_of(
            record, candidates[record.record_id][drawn[record.record_id]], session.tones
        )
        for record in usable
    }


def _scores(
    session: Session, records: Sequence[PrivateRecord], summaries: PrivateAbstractions
) -> dict[str, list[PrivateScore]]:
    texts = [item.text for record in records for item in summaries.candidates[record.record_id]]
    model = session.models.sentiment
    judged = iter(model.classify(texts) if model is not None else [None] * len(texts))
    found, vectors = {}, session.vectors_of(records)
    for record in records:
        own, tone = summaries.candidates[record.record_id], session.tones.get(record.record_id, NEUTRAL)
        seed = vectors[record.record_id]
        found[record.record_id] = [
            _score(float(summaries.embeddings[item.abstraction_id] @ seed), tone, next(judged))
            for item in own
        ]
    return found


def _score(cosine: float, tone: str, judged: Sentiment | None) -> PrivateScore:
    if judged is None or tone == NEUTRAL:
        return PrivateScore(cosine=cosine, agrees=None, confidence=0.0)
    return PrivateScore(cosine=cosine, agrees=judged.label == tone, confidence=judged.confidence)
