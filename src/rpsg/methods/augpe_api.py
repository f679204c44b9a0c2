"""The two ways in which AUG-PE has a language model write: from public words, and from its own texts."""

from collections.abc import Mapping, Sequence

import numpy as np

from rpsg.config import RunConfig
from rpsg.llm.prompting import PromptName, load_lines, load_prompt, roles_and_keywords
from rpsg.session import Session
from rpsg.stages.keys import OTHER
from rpsg.stages.variants import tidy
from rpsg.types import Candidate, Content, Labels, TextRequest

_TOKENS_PER_WORD = 1.45
_BLANK = "_"


def check_prompts(config: RunConfig) -> int:
    """Reads the prompts that a run needs; returns how many public roles and keywords there are together.

    Raises:
        ConfigError: one is missing, or a list is empty.
    """
    load_prompt(config.write.prompt, "fill" if config.augpe.variation == "fill" else "rewrite")
    return sum(map(len, roles_and_keywords(config.write.prompt)))


def write_random(session: Session, labels: Sequence[Labels], round_name: str) -> list[Candidate]:
    """RANDOM_API: writes one text for each of some labels, from public roles and keywords alone."""
    config = session.config
    roles, keywords = roles_and_keywords(config.write.prompt)
    requests, ids = [], []
    for i, own in enumerate(labels):
        rng = session.streams.get("augpe random", round_name, i)
        n_words = int(rng.integers(config.write.min_length, config.write.max_length + 1))
        values = {
            "labels": _in_words(own),
            "role": roles[int(rng.integers(len(roles)))],
            "keyword": keywords[int(rng.integers(len(keywords)))],
        }
        requests.append(_ask(config, "random", values, n_words=n_words, content="public", rng=rng))
        ids.append(f"{round_name}/{i}")
    replies = session.models.writer.at(f"random, {round_name}").complete(requests)
    return [
        Candidate(variant_id=name, record_id=name, text=tidy(reply.text), labels=own)
        for name, own, reply in zip(ids, labels, replies, strict=True)
    ]


def write_variations(
    session: Session, sources: Sequence[Candidate], n_each: int, round_name: str
) -> list[Candidate]:
    """VARIATION_API: writes `n_each` variations of each text, in order; reads earlier texts only."""
    config = session.config
    content: Content = "abstraction" if config.guarantee == "none" else "released"
    jobs = [(source, i) for source in sources for i in range(n_each)]
    requests = [
        _vary(config, source, session.streams.get("augpe vary", round_name, source.variant_id, i), content)
        for source, i in jobs
    ]
    replies = session.models.writer.at(f"vary, {round_name}").complete(requests)
    return [
        Candidate(
            variant_id=f"{source.variant_id}/{round_name}.{i}",
            record_id=source.record_id,
            text=tidy(reply.text),
            labels=source.labels,
        )
        for (source, i), reply in zip(jobs, replies, strict=True)
    ]


def _vary(config: RunConfig, source: Candidate, rng: np.random.Generator, content: Content) -> TextRequest:
    words = source.text.split()
    values = {"labels": _in_words(source.labels), "summary": "", "text": source.text}
    n_words = float(len(words))
    if config.augpe.variation == "fill":
        values["text"] = mask_words(words, config.augpe.mask_share, rng)
        n_words = float(rng.normal(n_words, config.augpe.length_std))
        name: PromptName = "fill"
    else:
        name = "rewrite"
    bounded = int(np.clip(n_words, config.write.min_length, config.write.max_length))
    return _ask(config, name, values, n_words=bounded, content=content, rng=rng)


def mask_words(words: Sequence[str], share: float, rng: np.random.Generator) -> str:
    """Replaces a share of the words, rounded, by blanks."""
    masked = set(rng.permutation(len(words))[: round(share * len(words))].tolist())
    return " ".join(_BLANK if i in masked else word for i, word in enumerate(words))


def _ask(
    config: RunConfig,
    name: PromptName,
    values: Mapping[str, str],
    *,
    n_words: int,
    content: Content,
    rng: np.random.Generator,
) -> TextRequest:
    openers = load_lines(config.write.prompt, "openers.txt")
    opener = openers[int(rng.integers(len(openers)))]
    return TextRequest(
        messages=load_prompt(config.write.prompt, name).fill(
            {**values, "words": str(n_words), "opener": opener, "tone": "neutral"}
        ),
        content=content,
        max_tokens=int(n_words * _TOKENS_PER_WORD) + 16,
        temperature=config.write.temperature,
        top_k=config.write.top_k,
        top_p=config.write.top_p,
        seed=int(rng.integers(2**62)),
    )


def _in_words(labels: Labels) -> str:
    return " ".join(f"{name}: {value}." for name, value in labels.items() if value != OTHER)
