"""The full-size proofs of the method: `make prove`. A missed limit fails, and is recorded with its figure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from measure import (
    Figures,
    check_quality,
    is_strict,
    loose_survival,
    planted,
    quality,
    released_texts,
    survivors,
)

from rpsg.config import RunConfig
from rpsg.data import sample_path
from rpsg.pipeline import load_corpus, run
from rpsg.result import RunResult
from rpsg.text import WordRuns

pytestmark = pytest.mark.prove
RecordProof = Callable[..., None]
DATA: dict[str, dict[str, Any]] = {
    "posts": {"data": {"path": str(sample_path("posts_train.jsonl")), "label_columns": ["topic"]}},
    "pubmed": {"data": {"path": str(sample_path("pubmed_train.jsonl"))}, "preset": "paper-pubmed"},
}


def start(name: str, folder: Path, **changes: object) -> tuple[RunConfig, RunResult]:
    config = RunConfig.parse({**DATA[name], **changes, "output": {"folder": str(folder)}})
    return config, run(config, load_corpus(config))


def run_figures(result: RunResult) -> Figures:
    return {**result.counts, "wanted": result.n_wanted, "released": len(result.texts)}


@pytest.mark.parametrize("name", list(DATA))
def test_quality_without_noise(name: str, tmp_path: Path, record_proof: RecordProof) -> None:
    config, result = start(name, tmp_path / "run", guarantee="none", n=100)
    figures = quality(result.folder, config, baseline=True)
    missed = check_quality(figures) + ([] if result.complete else [f"released: {len(result.texts)}"])
    record_proof(f"quality, {name}", {**figures, **run_figures(result)}, missed=missed)
    assert missed == []


def test_pubmed_with_noisy_choice(tmp_path: Path, record_proof: RecordProof) -> None:
    config, result = start("pubmed", tmp_path / "run", guarantee="selection", epsilon=4, n=100)
    private = WordRuns.build([record.text for record in load_corpus(config).records], 12)
    shared = sum(private.shared_with(text) for text in released_texts(result.folder))
    missed = [f"texts with a private 12-word run: {shared}"] if shared else []
    missed += [] if result.complete else [f"released: {len(result.texts)}"]
    figures = {"texts with a private 12-word run": shared, **run_figures(result)}
    record_proof("pubmed, selection, epsilon 4", figures, missed=missed)
    assert missed == []


def test_planted_details_do_not_survive(tmp_path: Path, record_proof: RecordProof) -> None:
    config, result = start("posts", tmp_path / "run", guarantee="selection", epsilon=4)
    texts = released_texts(result.folder)
    strict = [item for item in planted(Path(str(config.data.path))) if is_strict(item)]
    found = sum(survivors(texts, strict))
    loose = loose_survival(texts, sample_path("posts_train.jsonl"), sample_path("posts_test.jsonl"))
    missed = [f"strict details: {found}"] if found else []
    missed += [f"loose details: p {loose['one-sided p']:.3f}"] if loose["one-sided p"] < 0.05 else []
    figures = {"strict details": f"{found}/{len(strict)}", "loose details": loose, **run_figures(result)}
    record_proof("planted details, posts, selection, epsilon 4", figures, missed=missed)
    assert missed == []
