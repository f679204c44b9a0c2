"""The steps of the pipeline: each couples one stage with the session's models and ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rpsg.errors import DataError
from rpsg.llm.surrogate import Surrogate
from rpsg.plan import CALIBRATION_MIN, vote_mechanism
from rpsg.privacy.card import CHOICE
from rpsg.privacy.mechanisms import NoisyMax, PrivateRows
from rpsg.privacy.plain import NonPrivate, NonPrivateTexts
from rpsg.rng import Streams
from rpsg.session import Session
from rpsg.stages.abstract import PrivateAbstractions, PrivateNotes, abstract
from rpsg.stages.refine import PrivateContext, Refinery
from rpsg.stages.select import utilities
from rpsg.stages.variants import Source, vary
from rpsg.stages.vote import best_of_each, cast_votes, classes_of, survivors
from rpsg.text import MIN_WORDS, WordRuns, flaw_of
from rpsg.types import (
    PrivateAbstraction,
    PrivateCorpus,
    PrivateRecord,
    PrivateVariant,
    Rejection,
    SyntheticText,
)

_TELLING = frozenset({"EMAIL", "PHONE", "ID", "USERNAME"})
CHOICE_NOTE = "one draw a record and run; says nothing of the summaries themselves"
VOTE_NOTE = "candidates depend on the data: not part of any guarantee"
TEXTS_NOTE = "LLM rewrites of summaries of private records; nothing bounds what their wording reveals"


def check_labels(session: Session, corpus: PrivateCorpus) -> None:
    """Refuses label values that point at a person: labels are released as they are.

    Raises:
        DataError: a label value holds an e-mail address, a phone or document number, or a user name.
    """
    model = session.models.pii
    if model is None or not corpus.label_columns:
        return
    for column in corpus.label_columns:
        values = sorted({record.labels[column] for record in corpus.records if column in record.labels})
        n_bad = sum(any(span.type in _TELLING for span in spans) for spans in model.find(values))
        if n_bad:
            raise DataError(
                f"{n_bad} of {len(values)} values of label column {column!r} hold personal details (an "
                "e-mail address, a phone or document number, a user name), and labels are released; "
                "leave the column out, or group its values"
            )


def choose(session: Session, seeds: Sequence[PrivateRecord], *, label: str) -> dict[str, Source]:
    """Summarises each seed and chooses one summary: steps 2 and 3."""
    models = session.models
    summaries = summarise(session, seeds, session.streams)
    session.reject(summaries.rejected)
    usable = [record for record in seeds if record.record_id in summaries.candidates]
    tones = session.tones
    scores = utilities(
        usable,
        summaries.candidates,
        vectors={**session.vectors_of(usable), **summaries.embeddings},
        cosine_range=models.embedder.cosine_range,
        tones=tones,
        sentiment=models.sentiment,
    )
    chosen = _draw(session, scores, label)
    session.counts["seeds"] += len(seeds)
    session.tell(f"choice {label}", 1, 1)
    return {
        record.record_id: source_of(
            record, summaries.candidates[record.record_id][chosen[record.record_id]], tones
        )
        for record in usable
    }


def summarise(session: Session, seeds: Sequence[PrivateRecord], streams: Streams) -> PrivateAbstractions:
    """Writes the summaries of each seed: step 2."""
    config, models = session.config, session.models
    assert models.summariser is not None
    vectors = session.vectors_of(seeds)
    tones, details = session.judge_tones(seeds), session.find_details(seeds)
    ids = [record.record_id for record in seeds]
    summaries = abstract(
        seeds,
        summariser=models.summariser,
        embedder=models.embedder,
        notes={i: PrivateNotes(vector=vectors[i], tone=tones.get(i, ""), details=details[i]) for i in ids},
        languages=config.models.languages,
        config=config.abstract,
        streams=streams,
    )
    session.counts["summaries usable"] += sum(len(items) for items in summaries.candidates.values())
    session.counts["seeds summarised in parts"] += summaries.n_in_parts
    return summaries


def source_of(record: PrivateRecord, item: PrivateAbstraction, tones: Mapping[str, str]) -> Source:
    """Returns what a text is written from: a chosen summary."""
    return Source(
        source_id=item.abstraction_id,
        record_id=record.record_id,
        text=item.text,
        summary=item.text,
        labels=record.labels,
        tone=tones.get(record.record_id, "neutral"),
        n_words=len(record.text.split()),
        content="abstraction",
    )


def _draw(session: Session, scores: Mapping[str, Sequence[float]], label: str) -> dict[str, int]:
    config, name = session.config, f"{CHOICE}, {label}"
    if config.epsilon is None:
        best = {record_id: int(np.argmax(values)) for record_id, values in scores.items()}
        drawn = session.ledger.release(name, NonPrivate(reason="best summary, no noise"), best)
    else:
        mechanism = NoisyMax(epsilon=config.epsilon, n_candidates=config.abstract.n_candidates)
        drawn = session.ledger.release(name, mechanism, scores, note=CHOICE_NOTE)
    assert isinstance(drawn, dict)
    return drawn


def vary_from(
    session: Session, sources: Mapping[str, Source], *, label: str, n_each: int
) -> list[PrivateVariant]:
    """Writes texts from the chosen summaries (step 4) and drops those that are not usable texts."""
    written = vary(
        list(sources.values()),
        model=session.models.writer.at(f"write, {label}"),
        embedder=session.models.embedder,
        config=session.config.write,
        prompt="write",
        n_each=n_each,
        streams=session.streams,
        round_name=f"w-{label}",
    )
    session.counts["candidates written"] += len(written)
    return _usable(session, written, stage="write")


def _usable(session: Session, written: Sequence[PrivateVariant], *, stage: str) -> list[PrivateVariant]:
    flaws = [flaw_of(variant.text, min_words=MIN_WORDS) for variant in written]
    session.reject(
        Rejection(item_id=variant.variant_id, record_id=variant.record_id, stage=stage, reason=flaw)
        for variant, flaw in zip(written, flaws, strict=True)
        if flaw is not None
    )
    return [variant for variant, flaw in zip(written, flaws, strict=True) if flaw is None]


def hold_vote(
    session: Session, candidates: Sequence[PrivateVariant], pool: PrivateCorpus, *, n_places: int
) -> list[PrivateVariant]:
    """Private records vote for candidates; the best survivor of each seed goes on: step 5.

    The number of counts drawn is on the card, so it is `n_places`, what was asked for: how many candidates
    were usable depends on the private texts.
    """
    config = session.config
    seeds = [variant.record_id for variant in candidates]
    if not config.vote.enabled or not candidates:
        return [candidates[i] for i in best_of_each([0.0] * len(seeds), seeds, range(len(seeds)))]
    classes = classes_of([variant.labels for variant in candidates])
    texts = [variant.text for variant in candidates]
    votes = cast_votes(
        session.embed_records(pool.records),
        [record.labels for record in pool.records],
        [record.unit_id for record in pool.records],
        vectors=session.models.embedder.embed(texts),
        classes=classes,
        device=config.generation.device,
    )
    counts = _count_votes(session, votes, n_places, texts)[: len(candidates)]
    kept = survivors(counts, classes, share=config.vote.survive)
    chosen = set(best_of_each(counts, seeds, kept))
    session.reject(
        Rejection(item_id=variant.variant_id, record_id=variant.record_id, stage="vote", reason="outvoted")
        for i, variant in enumerate(candidates)
        if i not in chosen
    )
    session.tell("vote", 1, 1)
    return [candidates[i] for i in sorted(chosen)]


def _count_votes(
    session: Session, votes: PrivateRows, n_places: int, candidates: Sequence[str]
) -> list[float]:
    config = session.config
    if config.epsilon is None:
        exact = np.bincount(votes.items, weights=votes.weights, minlength=n_places).tolist()
        exactly = NonPrivate(reason="exact votes")
        counts = session.ledger.release("vote", exactly, exact, note=VOTE_NOTE, of=candidates)
    else:
        mechanism = vote_mechanism(config, n_items=n_places)
        counts = session.ledger.release("vote", mechanism, votes, note=VOTE_NOTE, of=candidates)
    assert isinstance(counts, list)
    return counts


def vary_again(
    session: Session,
    variants: Sequence[PrivateVariant],
    sources: Mapping[str, Source],
    *,
    label: str,
) -> list[PrivateVariant]:
    """Writes every survivor once more, with its abstraction at hand: step 6."""
    if not session.config.write.rewrite:
        return list(variants)
    return vary(
        [
            replace(sources[variant.record_id], source_id=variant.variant_id, text=variant.text)
            for variant in variants
        ],
        model=session.models.writer.at(f"rewrite, {label}"),
        embedder=session.models.embedder,
        config=session.config.write,
        prompt="rewrite",
        n_each=1,
        streams=session.streams,
        round_name=f"r-{label}",
    )


def prepare_refinery(
    session: Session, pool: PrivateCorpus, calibration: PrivateCorpus, first: Sequence[PrivateVariant]
) -> Refinery:
    """Trains the surrogate on first-round variants and sets the filters' thresholds: step 7."""
    config, models = session.config, session.models
    everyone = [*pool.records, *calibration.records]
    texts = [record.text for record in everyone]
    wanted = config.refine.nll.enabled and len(calibration) >= CALIBRATION_MIN and bool(first)
    session.tell("prepare filters", 0, 3)
    surrogate = None
    nll = np.zeros(len(everyone))
    if wanted:
        surrogate = Surrogate.train(
            [variant.text for variant in first], seed=session.streams.key("surrogate") % 2**31
        )
        nll = surrogate.nll(texts)
    session.tell("prepare filters", 1, 3)
    details = frozenset[str]().union(*session.find_details(everyone).values())
    session.tell("prepare filters", 2, 3)
    n = len(pool)
    context = PrivateContext(
        runs=WordRuns.build(texts, config.refine.copied_run),
        details=details,
        seeds=session.embed_records(pool.records),
        calibration=session.embed_records(calibration.records).read()
        if len(calibration)
        else np.empty((0, 1), "f4"),
        seed_nll=dict(zip((record.record_id for record in pool.records), nll[:n].tolist(), strict=True)),
        calibration_nll=nll[n:],
    )
    session.tell("prepare filters", 3, 3)
    return Refinery(
        context,
        config=config.refine,
        embedder=models.embedder,
        surrogate=surrogate,
        pii=models.pii,
        languages=config.models.languages,
        streams=session.streams,
    )


def release_texts(session: Session, accepted: Sequence[PrivateVariant]) -> tuple[SyntheticText, ...]:
    """Takes the accepted texts through the door: from here on they are released."""
    released = session.ledger.release(
        "texts", NonPrivateTexts(reason="rewritten summaries"), accepted, note=TEXTS_NOTE
    )
    assert isinstance(released, tuple)
    return released
