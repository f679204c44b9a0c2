"""Measures a finished run from its own folder, and the baseline that reads no private text."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.data import read_corpus
from rpsg.evaluate import diversity, fidelity
from rpsg.llm.redact import contains_detail
from rpsg.rng import Streams
from rpsg.stages.variants import Source, vary
from rpsg.text import MIN_WORDS, flaw_of

Figures = dict[str, Any]
STRICT = ("EMAIL", "ADDRESS", "ID", "USERNAME", "ORG", "PHONE", "DATE_OF_BIRTH")


def seed_ids(folder: Path) -> list[str]:
    """Returns the seed of each released text, in released order, from the run's private part."""
    with sqlite3.connect(folder / "private/ledger.sqlite") as ledger:
        row = ledger.execute("SELECT result FROM entries WHERE label = 'texts'").fetchone()
    return [item["variant_id"].split("/")[0] for item in json.loads(row[0])]


def released_texts(folder: Path) -> list[str]:
    lines = (folder / "release/synthetic.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def quality(folder: Path, config: RunConfig, *, baseline: bool) -> Figures:
    """Compares a release with its seeds, and with texts from public prompts only."""
    records = read_corpus(Path(str(config.data.path))).records
    by_id = {record.record_id: record.text for record in records}
    seeds = [by_id[name] for name in seed_ids(folder)]
    texts = released_texts(folder)
    embedder = registry.embedder(config.models.embed)
    ours = embedder.embed(texts)
    own, other = fidelity.cosine_to_seed(embedder.embed(seeds), ours, rng=np.random.default_rng(0))
    figures: Figures = {
        "n": len(texts),
        "cosine to own seed": own,
        "cosine to a random seed": other,
        "gap": own - other,
        "length ratio": diversity.length_ratio(seeds, texts),
        "distinct": diversity.share_distinct(texts),
        "meta text": diversity.share_flawed(texts),
        "same six-word opening": diversity.share_same_opening(texts),
    }
    if baseline:
        everyone = embedder.embed([record.text for record in records])
        public = embedder.embed(public_texts(config, seeds))
        figures["Frechet distance"] = fidelity.frechet_distance(everyone, ours)
        figures["Frechet distance, public prompts"] = fidelity.frechet_distance(everyone, public)
    return figures


def public_texts(config: RunConfig, seeds: Sequence[str]) -> list[str]:
    """Writes as many texts as there are seeds with the same model, from public prompts and lengths only."""
    wanted, found = len(seeds), []
    model = registry.text_model(config.models.write, dtype="auto", threads=None)
    for attempt in range(16):
        sources = [
            Source(
                source_id=f"public{attempt}.{i}",
                record_id=f"public{attempt}.{i}",
                text="",
                summary="",
                labels={},
                tone="neutral",
                n_words=len(seeds[i].split()),
                content="public",
            )
            for i in range(wanted - len(found))
        ]
        texts = vary(
            sources,
            model=model,
            embedder=registry.embedder(config.models.embed),
            config=config.write,
            prompt="public",
            n_each=1,
            streams=Streams(config.seed),
            round_name="public",
        )
        found += [item.text for item in texts if flaw_of(item.text, min_words=MIN_WORDS) is None]
        if len(found) >= wanted:
            break
    assert len(found) == wanted
    return found


def check_quality(figures: Figures) -> list[str]:
    """Returns the limits of the quality gate that a set of figures misses."""
    limits = {
        "gap": (0.10, None),
        "length ratio": (0.5, 1.5),
        "distinct": (0.98, None),
        "meta text": (None, 0.02),
        "same six-word opening": (None, max(0.03, 1 / figures["n"])),
    }
    missed = [
        f"{name}: {figures[name]:.3f}"
        for name, (low, high) in limits.items()
        if (low is not None and figures[name] < low) or (high is not None and figures[name] > high)
    ]
    if figures.get("Frechet distance", 0.0) >= figures.get("Frechet distance, public prompts", 1.0):
        missed.append(f"Frechet distance: {figures['Frechet distance']:.3f}")
    return missed


def planted(path: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(item["type"], item["value"]) for row in rows for item in row["pii"]]


def survivors(texts: Sequence[str], details: Sequence[tuple[str, str]]) -> list[bool]:
    """Tells of each planted detail whether any text contains it."""
    return [any(contains_detail(text, value) for text in texts) for _, value in details]


def is_strict(detail: tuple[str, str]) -> bool:
    """Types that must never survive: all that point at one person; of names only full ones."""
    kind, value = detail
    return kind in STRICT or (kind == "PERSON" and len(value.split()) > 1)


def loose_survival(texts: Sequence[str], own: Path, held_out: Path) -> Figures:
    """Tests whether ages, places and first names survive more often than those of posts never read."""
    counts = []
    for path in (own, held_out):
        hits = survivors(texts, [item for item in planted(path) if not is_strict(item)])
        counts.append((sum(hits), len(hits)))
    (a, n), (b, m) = counts
    test = fisher_exact([[a, n - a], [b, m - b]], alternative="greater")
    return {"own": f"{a}/{n}", "held out": f"{b}/{m}", "one-sided p": float(test.pvalue)}
