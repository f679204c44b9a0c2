"""Variants: an LLM writes realistic texts from abstractions, and rewrites survivors (steps 4 and 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rpsg.config import WriteConfig
from rpsg.llm.prompting import PromptName, load_lines, load_prompt
from rpsg.rng import Streams
from rpsg.text import is_usable, strip_wrapping, trim_loops, trim_to_sentences
from rpsg.types import Content, Embedder, Labels, PrivateVariant, TextModel, TextRequest

# Tokens to a word of English, with room for the sentence that will be trimmed away.
_TOKENS_PER_WORD = 1.45
_LENGTH_NOISE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Source:
    """What a text is written from. Private in the modes whose summaries are; see `Seed` for the other.

    Attributes:
        source_id: id of the abstraction or variant.
        record_id: the seed.
        text: the abstraction's or variant's text.
        summary: the abstraction that began the chain.
        labels: the seed's labels.
        tone: positive, negative or neutral.
        n_words: length of the seed in words.
        content: what `text` is.
        hints: what fills gaps of the prompt first: in `random` ones a public role and a public keyword.
    """

    source_id: str
    record_id: str
    text: str
    summary: str
    labels: Labels
    tone: str
    n_words: int
    content: Content
    hints: Mapping[str, str] = field(default_factory=dict)


def vary(
    sources: Sequence[Source],
    *,
    model: TextModel,
    embedder: Embedder,
    config: WriteConfig,
    prompt: PromptName,
    n_each: int,
    streams: Streams,
    round_name: str,
) -> list[PrivateVariant]:
    """Writes `n_each` texts from each private source; see `write_texts`.

    Returns:
        The variants in the order of the sources; texts may be empty or flawed (refinement judges).
    """
    texts = write_texts(
        sources,
        model=model,
        embedder=embedder,
        config=config,
        prompt=prompt,
        n_each=n_each,
        streams=streams,
        round_name=round_name,
    )
    return [
        PrivateVariant(
            variant_id=f"{source.record_id}/{round_name}.{i}",
            record_id=source.record_id,
            text=text,
            labels=source.labels,
            parent_id=source.source_id,
        )
        for (source, i), text in zip(
            ((source, i) for source in sources for i in range(n_each)), texts, strict=True
        )
    ]


def write_texts(
    sources: Sequence[Source],
    *,
    model: TextModel,
    embedder: Embedder,
    config: WriteConfig,
    prompt: PromptName,
    n_each: int,
    streams: Streams,
    round_name: str,
) -> list[str]:
    """Writes `n_each` texts from each source.

    Of every text several drafts are written, and the usable one nearest to its abstraction is kept: a
    small model wanders off. This compares only what the model read and wrote.

    Args:
        sources: abstractions or variants.
        model: writes the texts; may be remote only where the caller allows that.
        embedder: compares drafts with their abstraction.
        config: prompt folder, lengths, drafts, sampling.
        prompt: `write` makes a text of an abstraction, `rewrite` a new version of a text, `keys` a text
            around phrases, `public` a text from labels and length alone, `random` one from a public role and
            keyword too (these two read no source text, and have one draft).
        n_each: texts a source.
        streams: experiment randomness.
        round_name: makes ids and random streams unique.

    Returns:
        The texts, `n_each` a source, in order; they may be empty or flawed (refinement judges).
    """
    n_drafts = 1 if prompt in {"public", "random"} else config.n_drafts
    jobs = [(source, i) for source in sources for i in range(n_each)]
    replies = model.complete(
        [
            request
            for source, i in jobs
            for request in _ask(
                source, streams.get(round_name, source.source_id, i), config, prompt, n_drafts
            )
        ]
    )
    texts = [tidy(reply.text) for reply in replies]
    drafts = [texts[start : start + n_drafts] for start in range(0, len(texts), n_drafts)]
    return _nearest_drafts([source.summary for source, _ in jobs], drafts, embedder)


def _ask(
    source: Source, rng: np.random.Generator, config: WriteConfig, prompt: PromptName, n_drafts: int
) -> list[TextRequest]:
    # The drafts of a text share their prompt, which the decoder then reads once.
    template = load_prompt(config.prompt, prompt)
    openers = load_lines(config.prompt, "openers.txt")
    n_words = _target_words(source.n_words, config, rng)
    messages = template.fill(
        _values(source, opener=openers[int(rng.integers(len(openers)))], n_words=n_words)
    )
    request = TextRequest(
        messages=messages,
        content=source.content,
        max_tokens=int(n_words * _TOKENS_PER_WORD) + 16,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
    )
    return [replace(request, seed=int(rng.integers(2**62))) for _ in range(n_drafts)]


def _nearest_drafts(
    summaries: Sequence[str], drafts: Sequence[Sequence[str]], embedder: Embedder
) -> list[str]:
    if all(len(group) == 1 for group in drafts):
        return [group[0] for group in drafts]
    usable = [[text for text in group if is_usable(text)] for group in drafts]
    vectors = iter(embedder.embed([text for group in usable for text in group]))
    kept = []
    for summary, group, first in zip(embedder.embed(summaries), usable, drafts, strict=True):
        nearness = [float(next(vectors) @ summary) for _ in group]
        kept.append(group[int(np.argmax(nearness))] if group else first[0])
    return kept


def tidy(text: str) -> str:
    """Cuts a reply to whole sentences, before it goes in circles, and takes off what wraps it."""
    return trim_loops(trim_to_sentences(strip_wrapping(text)))


def _target_words(n_words: int, config: WriteConfig, rng: np.random.Generator) -> int:
    noisy = n_words * (1 + rng.uniform(-_LENGTH_NOISE, _LENGTH_NOISE))
    return int(np.clip(noisy, config.min_length, config.max_length))


def _values(source: Source, *, opener: str, n_words: int) -> dict[str, str]:
    labels = "".join(f"{name}: {value}. " for name, value in source.labels.items()).strip()
    return {
        "text": source.text,
        "summary": source.summary,
        "labels": labels,
        "tone": source.tone,
        "words": str(n_words),
        "opener": opener,
        **source.hints,
    }
