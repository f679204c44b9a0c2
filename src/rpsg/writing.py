"""What an end-to-end run writes: candidates from noisy histograms and public words, and what survives varied.

Reads ledger outputs and public inputs only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rpsg.config import RunConfig
from rpsg.llm.prompting import PromptName, has_roles, roles_and_keywords
from rpsg.plan_keys import KeysPlan
from rpsg.public import write_public
from rpsg.session import Session
from rpsg.stages.keys import OTHER, ReleasedKeys, sample_paid_seeds
from rpsg.stages.variants import Source
from rpsg.text import is_usable
from rpsg.types import Candidate, Labels, Seed

FIRST = "first"
_WAYS: tuple[PromptName, ...] = ("keys", "public", "random")


def describe_inputs(provenance: str, planned: KeysPlan, config: RunConfig) -> str:
    """Names the public inputs on the card."""
    parts = [provenance]
    if has_roles(config.write.prompt):
        roles, keywords = roles_and_keywords(config.write.prompt)
        parts.append(f"{len(roles)} roles and {len(keywords)} keywords")
    if planned.label_values:
        declared = (f"{name} ({len(values)})" for name, values in sorted(planned.label_values.items()))
        parts.append(f"label values declared: {', '.join(declared)}")
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes exactly as many candidates as are asked for, from seeds sampled from the noisy histograms.

    A seed with phrases is written around them. Of those without, every other one is written from a public
    role and keyword, if the prompt folder names some (as AUG-PE's RANDOM_API does, so that both know the
    same), the others from their labels, or from the prompt that names nothing: nobody knows in advance which
    is nearer to the private texts, and a vote chooses.

    With epsilon 0 no seed has phrases: seeds are drawn from public settings, every label value as likely.
    """

    session: Session
    planned: KeysPlan
    keys: ReleasedKeys | None
    label_columns: Sequence[str]

    def __call__(self, n: int, round_name: str) -> list[Candidate]:
        """Writes `n` candidates under fresh ids."""
        session, seeds = self.session, self._seeds(n, round_name)
        if self.keys is None:
            session.public_inputs = describe_inputs("public prompts only", self.planned, session.config)
        ways, texts = self._ways(seeds), [""] * n
        for way in _WAYS:
            places = [i for i in range(n) if ways[i] == way]
            if places:
                sources = [self._source(seeds[i], way) for i in places]
                written = write_public(session, sources, prompt=way, round_name=round_name)
                for i, text in zip(places, written, strict=True):
                    texts[i] = text
        session.counts["candidates written"] += len(texts)
        return [
            Candidate(variant_id=f"{seed.seed_id}/w", record_id=seed.seed_id, text=text, labels=seed.labels)
            for seed, text in zip(seeds, texts, strict=True)
        ]

    def _seeds(self, n: int, round_name: str) -> list[Seed]:
        return sample_paid_seeds(
            self.keys or ReleasedKeys.public(self.planned.label_cells),
            n,
            label_columns=self.label_columns,
            phrases_per_text=self.session.config.keys.phrases_per_text,
            # Where no vote follows, nothing chooses among the texts.
            guided=self.session.config.keys.guided if self.planned.votes and round_name == FIRST else 1.0,
            streams=self.session.streams,
            round_name=round_name,
        )

    def _ways(self, seeds: Sequence[Seed]) -> list[PromptName]:
        with_roles, n_without = has_roles(self.session.config.write.prompt), 0
        ways: list[PromptName] = []
        for seed in seeds:
            n_without += not seed.phrases
            if with_roles and not seed.phrases and n_without % 2:
                ways.append("random")
            else:
                ways.append("keys" if _words_of(seed) else "public")
        return ways

    def _source(self, seed: Seed, way: PromptName) -> Source:
        words = "" if way == "random" else ", ".join(_words_of(seed))
        return Source(
            source_id=seed.seed_id,
            record_id=seed.seed_id,
            text=words,
            summary=words,
            labels=_named(seed.labels),
            tone=seed.tone,
            n_words=seed.n_words,
            content="released" if self.keys else "public",
            hints=self._hints(seed) if way == "random" else {},
        )

    def _hints(self, seed: Seed) -> dict[str, str]:
        roles, keywords = roles_and_keywords(self.session.config.write.prompt)
        rng = self.session.streams.get("role and keyword", seed.seed_id)
        return {
            "role": roles[int(rng.integers(len(roles)))],
            "keyword": keywords[int(rng.integers(len(keywords)))],
        }


def _words_of(seed: Seed) -> tuple[str, ...]:
    return seed.phrases or tuple(_named(seed.labels).values())


def _named(labels: Labels) -> Labels:
    return {name: value for name, value in labels.items() if value != OTHER}


def vary_survivors(
    session: Session, ranked: Sequence[Candidate], n: int, *, round_name: str
) -> list[Candidate]:
    """Returns the upper half of a finished vote and rewrites of it, `n` candidates in all."""
    kept = [item for item in ranked[: math.ceil(n / 2)] if is_usable(item.text)] or list(ranked[:1])
    again = [kept[i % len(kept)] for i in range(n - len(kept))]
    sources = [
        Source(
            source_id=f"{item.variant_id}/{round_name}.{i}",
            record_id=item.record_id,
            text=item.text,
            # Drafts are compared with the text; the prompt, with room for an abstraction too, holds it once.
            summary=item.text,
            hints={"summary": ""},
            labels=_named(item.labels),
            tone="neutral",
            n_words=len(item.text.split()),
            content="released",
        )
        for i, item in enumerate(again)
    ]
    texts = write_public(session, sources, prompt="rewrite", round_name=round_name)
    return kept + [
        Candidate(variant_id=source.source_id, record_id=item.record_id, text=text, labels=item.labels)
        for source, item, text in zip(sources, again, texts, strict=True)
    ]
