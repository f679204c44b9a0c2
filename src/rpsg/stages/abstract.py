"""Abstraction: several different summaries of each seed (paper, section 2, step 2).

Everything here reads private text and runs on a local model. More summaries are written than are
needed; those that copy, break off, repeat themselves, talk about the task, keep a number or a personal
detail, or are in another language are screened out, and the K nearest to the seed are kept.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rpsg.config import AbstractConfig
from rpsg.llm.language import detect_languages
from rpsg.llm.redact import contains_detail
from rpsg.llm.wrappers import require_local
from rpsg.rng import Streams
from rpsg.text import WordRuns, flaw_of, split_into_parts, trim_to_sentences
from rpsg.types import (
    Completion,
    Embedder,
    FloatArray,
    PrivateAbstraction,
    PrivateRecord,
    Rejection,
    Summariser,
)

STAGE = "abstract"
ATTEMPTS = 3
# A small model repeats its instructions, or talks about the text instead of what is in it.
_ABOUT_THE_TASK = re.compile(
    r"own words|general (?:words|terms)|\b(?:the|this|author['’]s) (?:post|article|passage)\b"
    r"|narrat|phrase|summar|first[- ]person|personal details|\bcreat\w+ a story",
    re.IGNORECASE,
)
# Ages, amounts, dates, house numbers; not the digit in "type 2" or "IL-6".
_NUMBER = re.compile(r"(?<![\w-])(?:[$£€]\s?\d|\d[\d.,:/]*\d)")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateNotes:
    """What is known of a seed before it is summarised.

    Attributes:
        vector: unit vector of its text.
        tone: its sentiment, which the summariser is told to keep; "" without one.
        details: its personal details; a summary that keeps one is redone.
    """

    vector: FloatArray
    tone: str
    details: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateAbstractions:
    """The candidates of each seed.

    Attributes:
        candidates: record id to at most K distinct summaries with their embeddings, best first.
        embeddings: abstraction id to unit vector.
        rejected: one entry a summary screened out, and one a seed without any.
        n_in_parts: seeds too long for the model, summarised in parts.
    """

    candidates: dict[str, tuple[PrivateAbstraction, ...]]
    embeddings: dict[str, FloatArray]
    rejected: tuple[Rejection, ...]
    n_in_parts: int


def abstract(
    records: Sequence[PrivateRecord],
    *,
    summariser: Summariser,
    embedder: Embedder,
    notes: Mapping[str, PrivateNotes],
    languages: Sequence[str],
    config: AbstractConfig,
    streams: Streams,
) -> PrivateAbstractions:
    """Writes up to K distinct summaries of every record.

    A record left with fewer than K usable summaries is tried again, at most twice and with half as
    many samples; one left with none is dropped with a reason.

    Args:
        records: the seeds.
        summariser: a local model.
        embedder: a local model; ranks the summaries by nearness to their seed.
        notes: record id to what is known of it.
        languages: languages a summary may be in.
        config: K, samples, lengths.
        streams: experiment randomness.

    Raises:
        PrivateDataError: a model is remote.
    """
    for model in (summariser, embedder):
        require_local(model.name, model.trust, task="abstraction")
    found: dict[str, list[str]] = {record.record_id: [] for record in records}
    rejected: list[Rejection] = []
    in_parts = sum(len(split_into_parts(record.text, summariser.max_words)) > 1 for record in records)
    waiting = list(records)
    for attempt in range(ATTEMPTS):
        waiting = [record for record in waiting if len(found[record.record_id]) < config.n_candidates]
        if not waiting:
            break
        tones = [notes[record.record_id].tone for record in waiting]
        seeds = [streams.key(STAGE, record.record_id, attempt) for record in waiting]
        n_samples = config.n_samples if attempt == 0 else -(-config.n_samples // 2)
        drafts = _write(waiting, summariser, tones, seeds, n=n_samples)
        flaws = _screen(waiting, drafts, notes, languages, config)
        for record, texts, reasons in zip(waiting, drafts, flaws, strict=True):
            for i, (text, reason) in enumerate(zip(texts, reasons, strict=True)):
                if reason is None and text not in found[record.record_id]:
                    found[record.record_id].append(text)
                else:
                    item = f"{record.record_id}/a{attempt}.{i}"
                    rejected.append(_rejection(item, record, reason or "duplicate"))
    rejected += [
        _rejection(record.record_id, record, "no usable summary")
        for record in records
        if not found[record.record_id]
    ]
    kept, own = _keep_nearest(records, found, embedder, notes, config.n_candidates)
    return PrivateAbstractions(candidates=kept, embeddings=own, rejected=tuple(rejected), n_in_parts=in_parts)


def _write(
    records: Sequence[PrivateRecord],
    summariser: Summariser,
    tones: Sequence[str],
    seeds: Sequence[int],
    *,
    n: int,
) -> list[list[str]]:
    # A long text is cut at sentence ends; the i-th summaries of its parts are joined.
    parts = [split_into_parts(record.text, summariser.max_words) for record in records]
    texts = [part for group in parts for part in group]
    part_tones = [tone for tone, group in zip(tones, parts, strict=True) for _ in group]
    part_seeds = [seed + i for seed, group in zip(seeds, parts, strict=True) for i in range(len(group))]
    replies = iter(summariser.summarise(texts, n=n, seeds=part_seeds, tones=part_tones))
    drafts = []
    for group in parts:
        summaries = [[_clean(reply) for reply in next(replies)] for _ in group]
        drafts.append([" ".join(pieces) if all(pieces) else "" for pieces in zip(*summaries, strict=False)])
    return drafts


def _clean(reply: Completion) -> str:
    first = reply.text.strip().split("\n\n")[0]
    return trim_to_sentences(" ".join(first.split()))


def _screen(
    records: Sequence[PrivateRecord],
    drafts: Sequence[Sequence[str]],
    notes: Mapping[str, PrivateNotes],
    languages: Sequence[str],
    config: AbstractConfig,
) -> list[list[str | None]]:
    spoken = iter(detect_languages([text for texts in drafts for text in texts]))
    allowed = {"", *languages}
    reasons: list[list[str | None]] = []
    for record, texts in zip(records, drafts, strict=True):
        source = WordRuns.build([record.text], config.copied_run)
        row: list[str | None] = []
        for text in texts:
            language = next(spoken)
            reason = flaw_of(text, min_words=config.min_words, is_summary=True) or _leak_in(text, source)
            details = notes[record.record_id].details
            if reason is None and any(contains_detail(text, value) for value in details):
                reason = "personal detail"
            if reason is None and language not in allowed:
                reason = "language"
            row.append(reason)
        reasons.append(row)
    return reasons


def _leak_in(text: str, source: WordRuns) -> str | None:
    if _ABOUT_THE_TASK.search(text):
        return "meta text"
    if source.shared_with(text):
        return "copied run"
    return "number" if _NUMBER.search(text) else None


def _keep_nearest(
    records: Sequence[PrivateRecord],
    found: dict[str, list[str]],
    embedder: Embedder,
    notes: Mapping[str, PrivateNotes],
    k: int,
) -> tuple[dict[str, tuple[PrivateAbstraction, ...]], dict[str, FloatArray]]:
    usable = [record for record in records if found[record.record_id]]
    texts = [text for record in usable for text in found[record.record_id]]
    if not texts:
        return {}, {}
    vectors = embedder.embed(texts)
    kept: dict[str, tuple[PrivateAbstraction, ...]] = {}
    by_id: dict[str, FloatArray] = {}
    start = 0
    for record in usable:
        block = vectors[start : start + len(found[record.record_id])]
        best = np.argsort(-(block @ notes[record.record_id].vector), kind="stable")[:k]
        chosen = []
        for rank, index in enumerate(best):
            name = f"{record.record_id}/a{rank}"
            text = texts[start + int(index)]
            chosen.append(PrivateAbstraction(abstraction_id=name, record_id=record.record_id, text=text))
            by_id[name] = block[index]
        kept[record.record_id] = tuple(chosen)
        start += len(block)
    return kept, by_id


def _rejection(item: str, record: PrivateRecord, reason: str) -> Rejection:
    return Rejection(item_id=item, record_id=record.record_id, stage=STAGE, reason=reason)
