"""End-to-end differential privacy from private seeds, on one page: keys, texts, votes, release.

Theorem. Keys are mu_B-GDP (`rpsg.stages.keys`). A vote counts, for candidates that are functions of earlier
releases and public inputs, each unit's nearest ones, clipped to L2 norm 1, so T rounds add T / sigma^2. The
whole output is mu-GDP with mu^2 = mu_B^2 + T / sigma^2, plus the delta of thresholded keys (specification,
sections 3.2 and 3.3). T, n and the stopping rule are fixed in advance; what follows a release reads the
release and public inputs only, so the writing model may be remote.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from rpsg import data
from rpsg.config import RunConfig
from rpsg.plan import Plan
from rpsg.plan_keys import KeysPlan, plan_keys
from rpsg.privacy import budget
from rpsg.privacy.noise import NoiseSource
from rpsg.privacy.plain import PaidTexts
from rpsg.public import build_public, write_public
from rpsg.release import publish
from rpsg.result import RunResult
from rpsg.rundir import RunDir
from rpsg.session import Session, open_session
from rpsg.stages.keys import OTHER, ReleasedKeys, extract_keys, histogram_rows, sample_paid_seeds
from rpsg.stages.refine import PrivateContext, Refinery
from rpsg.stages.variants import Source
from rpsg.stages.vote import cast_votes
from rpsg.text import MIN_WORDS, flaw_of
from rpsg.types import Candidate, Labels, PrivateCorpus, Progress, Seed, SyntheticText

PAID_NOTE = "written from the releases above and public inputs"


def run_end_to_end(
    config: RunConfig,
    corpus: PrivateCorpus,
    *,
    on_progress: Callable[[Progress], None],
    noise: NoiseSource | None,
) -> RunResult:
    """Turns private texts into a replica that is differentially private as a whole; see `pipeline.run`."""
    planned = plan_keys(config, has_labels=bool(corpus.label_columns))
    folder = RunDir.create(Path(str(config.output.folder)), config, fingerprint=data.fingerprint(corpus))
    with open_session(config, folder, on_progress, noise=noise) as session:
        session.n_outside = _settle(config, corpus, folder.run_id, planned)
        keys = release_keys(session, corpus, planned)
        ranked = vote_in_rounds(session, corpus, write_candidates(session, keys, planned, corpus), planned)
        texts = refine_and_release(session, ranked, keys, corpus)
        return publish(session, corpus, sizes_of(config), texts, notes=())


def _settle(config: RunConfig, corpus: PrivateCorpus, run_id: str, planned: KeysPlan) -> int | None:
    if config.outside_budget:
        return budget.note_outside(corpus, run_id)
    return budget.charge(corpus, run_id, planned.events())


def sizes_of(config: RunConfig) -> Plan:
    """Returns the sizes of an end-to-end run, none of which depends on the data."""
    n = config.n or 0
    return Plan(n_records=0, n_calibration=0, n_pool=0, n_wanted=n, n_seeds=0, filters_on=False)


# --- reads private text, gives out noisy histograms -------------------------------------------------


def release_keys(session: Session, corpus: PrivateCorpus, planned: KeysPlan) -> ReleasedKeys:
    """Computes each unit's keys on its own and releases their noisy histograms."""
    public = build_public(session, n_topics=planned.n_topics)
    session.public_inputs = public.provenance
    session.embed_records(corpus.records)
    private_keys = extract_keys(
        corpus.records,
        vectors=session.vectors,
        tones=session.judge_tones(corpus.records),
        centroids=public.centroids,
        max_phrases=planned.phrases.max_keys,
        salt=session.streams,
    )
    release = session.ledger.release
    topics: object = [1.0]
    labels: object = {}
    if planned.topics is not None:
        topics = release("topics", planned.topics, histogram_rows(private_keys.topics))
    facets = release("facets", planned.facets, histogram_rows(private_keys.facets))
    if planned.labels is not None:
        labels = release("labels", planned.labels, private_keys.labels)
    phrases = release("phrases", planned.phrases, private_keys.phrases)
    session.tell("keys", 1, 1)
    return ReleasedKeys(
        topics=cast("Sequence[float]", topics),
        facets=cast("Sequence[float]", facets),
        labels=cast("Mapping[str, float]", labels),
        phrases=cast("Mapping[str, float]", phrases),
    )


def vote_in_rounds(
    session: Session, corpus: PrivateCorpus, candidates: Sequence[Candidate], planned: KeysPlan
) -> list[Candidate]:
    """Lets every unit vote for its nearest candidates, T rounds; returns the last round's by rank."""
    ranked = list(candidates)
    for number, mechanism in enumerate(planned.votes, start=1):
        if number > 1:
            ranked = _vary(session, ranked, planned.n_candidates, round_name=f"round {number}")
        texts = [candidate.text for candidate in ranked]
        private_votes = cast_votes(
            session.embed_records(corpus.records),
            [{}] * len(corpus),
            [record.unit_id for record in corpus.records],
            vectors=session.models.embedder.embed(texts),
            classes=[""] * len(texts),
        )
        counts = cast("Sequence[float]", session.ledger.release(f"vote {number}", mechanism, private_votes))
        session.tell(f"vote {number}", 1, 1)
        order = sorted(range(len(ranked)), key=lambda i: -counts[i])
        ranked = [ranked[i] for i in order]
    return ranked


# --- reads ledger outputs and public inputs only ----------------------------------------------------


def write_candidates(
    session: Session, keys: ReleasedKeys, planned: KeysPlan, corpus: PrivateCorpus
) -> list[Candidate]:
    """Writes exactly as many candidates as were planned, from seeds sampled from the noisy histograms."""
    return _write(
        session, _seeds(session, keys, planned.n_candidates, corpus.label_columns, "first"), "first"
    )


def _seeds(
    session: Session, keys: ReleasedKeys, n: int, label_columns: Sequence[str], round_name: str
) -> list[Seed]:
    return sample_paid_seeds(
        keys,
        n,
        label_columns=label_columns,
        phrases_per_text=session.config.keys.phrases_per_text,
        streams=session.streams,
        round_name=round_name,
    )


def _write(session: Session, seeds: Sequence[Seed], round_name: str) -> list[Candidate]:
    sources = [_source(seed) for seed in seeds]
    texts = write_public(session, sources, prompt="keys", round_name=round_name)
    session.counts["candidates written"] += len(texts)
    return [
        Candidate(variant_id=f"{seed.seed_id}/w", record_id=seed.seed_id, text=text, labels=seed.labels)
        for seed, text in zip(seeds, texts, strict=True)
    ]


def _source(seed: Seed) -> Source:
    about = ", ".join(seed.phrases) or "what matters to its author"
    return Source(
        source_id=seed.seed_id,
        record_id=seed.seed_id,
        text=about,
        summary=about,
        labels=_named(seed.labels),
        tone=seed.tone,
        n_words=seed.n_words,
    )


def _named(labels: Labels) -> Labels:
    return {name: value for name, value in labels.items() if value != OTHER}


def _vary(session: Session, ranked: Sequence[Candidate], n: int, *, round_name: str) -> list[Candidate]:
    """Returns the upper half of a finished vote and rewrites of it, `n` candidates in all."""
    kept = list(ranked[: math.ceil(n / 2)])
    again = [kept[i % len(kept)] for i in range(n - len(kept))]
    sources = [
        Source(
            source_id=f"{item.variant_id}/{round_name}.{i}",
            record_id=item.record_id,
            text=item.text,
            summary=item.text,
            labels=_named(item.labels),
            tone="neutral",
            n_words=len(item.text.split()),
        )
        for i, item in enumerate(again)
    ]
    texts = write_public(session, sources, prompt="rewrite", round_name=round_name)
    return kept + [
        Candidate(variant_id=source.source_id, record_id=item.record_id, text=text, labels=item.labels)
        for source, item, text in zip(sources, again, texts, strict=True)
    ]


def refine_and_release(
    session: Session, ranked: Sequence[Candidate], keys: ReleasedKeys, corpus: PrivateCorpus
) -> tuple[SyntheticText, ...]:
    """Filters by what synthetic and public text shows, and releases the first `n` by rank.

    Refill: the next ranks, then new texts from new seeds of the same histograms; never another vote.
    """
    wanted = session.config.n or 0
    refinery = _public_refinery(session)
    accepted: list[Candidate] = []
    waiting = list(ranked)
    for number in range(session.config.refine.refill_rounds + 1):
        if number:
            seeds = _seeds(
                session, keys, 2 * (wanted - len(accepted)), corpus.label_columns, f"refill {number}"
            )
            waiting = _write(session, seeds, f"refill {number}")
        usable = [item for item in waiting if flaw_of(item.text, min_words=MIN_WORDS) is None]
        more, rejected = refinery.refine(usable)
        session.reject(rejected)
        accepted += more
        if len(accepted) >= wanted:
            break
    session.counts["texts accepted"] = len(accepted)
    released = session.ledger.release(
        "texts", PaidTexts(reason="written from noisy keys"), accepted[:wanted], note=PAID_NOTE
    )
    return cast("tuple[SyntheticText, ...]", released)


def _public_refinery(session: Session) -> Refinery:
    off = {"enabled": False}
    config = session.config.refine
    public_only = config.model_copy(
        update={
            "similarity": config.similarity.model_copy(update=off),
            "nll": config.nll.model_copy(update=off),
        }
    )
    return Refinery(
        PrivateContext.nothing(),
        config=public_only,
        embedder=session.models.embedder,
        surrogate=None,
        pii=session.models.pii,
        languages=session.config.models.languages,
        streams=session.streams,
    )
