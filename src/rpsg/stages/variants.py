"""Variants: an LLM writes realistic texts from abstractions, and rewrites survivors (steps 4 and 6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rpsg.config import WriteConfig
from rpsg.llm.prompting import PromptName, load_lines, load_prompt
from rpsg.rng import Streams
from rpsg.text import strip_wrapping, trim_to_sentences
from rpsg.types import Labels, PrivateVariant, TextModel, TextRequest

# Tokens to a word of English, with room for the sentence that will be trimmed away.
_TOKENS_PER_WORD = 1.45
_LENGTH_NOISE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateSource:
    """What a variant is written from.

    Attributes:
        source_id: id of the abstraction or variant.
        record_id: the seed.
        text: the abstraction's or variant's text.
        labels: the seed's labels.
        tone: positive, negative or neutral.
        n_words: length of the seed in words.
    """

    source_id: str
    record_id: str
    text: str
    labels: Labels
    tone: str
    n_words: int


def vary(
    sources: Sequence[PrivateSource],
    *,
    model: TextModel,
    config: WriteConfig,
    prompt: PromptName,
    n_each: int,
    streams: Streams,
    round_name: str,
) -> list[PrivateVariant]:
    """Writes `n_each` texts from each source.

    Args:
        sources: abstractions or variants.
        model: writes the texts; may be remote only where the caller allows that.
        config: prompt folder, lengths, sampling.
        prompt: `write` makes a text of an abstraction, `rewrite` a new version of a text, `public`
            a text from labels and length alone (a baseline: it reads no source text).
        n_each: texts a source.
        streams: experiment randomness.
        round_name: makes ids and random streams unique.

    Returns:
        The variants in the order of the sources; texts may be empty or flawed (refinement judges).
    """
    template = load_prompt(config.prompt, prompt)
    openers = load_lines(config.prompt, "openers.txt")
    jobs = [(source, i) for source in sources for i in range(n_each)]
    begins: list[str] = []
    requests: list[TextRequest] = []
    for source, i in jobs:
        rng = streams.get(round_name, source.source_id, i)
        n_words = _target_words(source.n_words, config, rng)
        opener = openers[int(rng.integers(len(openers)))]
        values = _values(source, opener=opener, n_words=n_words)
        messages = template.fill(values)
        begins.append(messages[-1].content if template.begins_reply else "")
        requests.append(
            TextRequest(
                messages=messages,
                max_tokens=int(n_words * _TOKENS_PER_WORD) + 16,
                temperature=config.temperature,
                top_k=config.top_k,
                top_p=config.top_p,
                seed=int(rng.integers(2**62)),
            )
        )
    replies = model.complete(requests)
    return [
        PrivateVariant(
            variant_id=f"{source.record_id}/{round_name}.{i}",
            record_id=source.record_id,
            text=tidy(begin + reply.text),
            labels=source.labels,
            parent_id=source.source_id,
        )
        for (source, i), begin, reply in zip(jobs, begins, replies, strict=True)
    ]


def tidy(text: str) -> str:
    """Cuts a reply to whole sentences and takes off what wraps it (quotation marks, a heading)."""
    return trim_to_sentences(strip_wrapping(text))


def _target_words(n_words: int, config: WriteConfig, rng: np.random.Generator) -> int:
    noisy = n_words * (1 + rng.uniform(-_LENGTH_NOISE, _LENGTH_NOISE))
    return int(np.clip(noisy, config.min_length, config.max_length))


def _values(source: PrivateSource, *, opener: str, n_words: int) -> dict[str, str]:
    labels = "".join(f"{name}: {value}. " for name, value in source.labels.items()).strip()
    return {
        "text": source.text,
        "labels": labels,
        "tone": source.tone,
        "words": str(n_words),
        "opener": opener,
    }
