"""`rpsg-published`: the choice as the published code makes it, without any guarantee."""

import math
from pathlib import Path

import numpy as np
import pytest

from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError
from rpsg.methods.published import PrivateScore, pick, published_sigma
from rpsg.pipeline import plan_releases, run, statement_of
from rpsg.privacy.card_file import check_card, read_card
from rpsg.privacy.choice import gaussian_argmax_epsilon
from rpsg.privacy.ledger import read_run
from rpsg.types import PrivateCorpus
from test_pipeline import config as base_config


@pytest.fixture(scope="module")
def corpus() -> PrivateCorpus:
    return read_corpus(sample_path("posts_train.jsonl"), label_columns=("topic",))


def config(folder: Path, **changes: object) -> RunConfig:
    values = base_config(folder).model_dump(mode="json", exclude_unset=True)
    del values["guarantee"]
    models = {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": "vader"}
    return RunConfig.parse({**values, "method": "rpsg-published", "models": models, **changes})


def test_noise_is_the_published_one() -> None:
    # Specification, section 4.3: N = 8,948 and N = 900 seeds at nominal epsilon 4.
    assert published_sigma(4, 8948) == pytest.approx(1.201, abs=5e-4)
    assert published_sigma(4, 900) == pytest.approx(1.057, abs=5e-4)
    # What the index costs, given candidates and gate and without the second try.
    assert gaussian_argmax_epsilon(published_sigma(4, 8948), 5) == pytest.approx(1.955, abs=2e-3)


def score(cosine: float, agrees: bool | None = None, confidence: float = 0.9) -> PrivateScore:
    return PrivateScore(cosine=cosine, agrees=agrees, confidence=confidence)


def test_scores_are_the_published_ones() -> None:
    assert score(0.8, True).value == pytest.approx(0.75 * 0.8 + 0.25)
    assert score(0.8, False).value == pytest.approx(0.75 * 0.8 - 0.15)
    assert score(0.8).value == pytest.approx(0.75 * 0.8 + 0.125)


def test_the_range_of_a_record_decides_not_the_size_of_a_difference() -> None:
    """The defect: a difference of a millionth is scaled to 1, as one of a half is."""
    rng = [np.random.default_rng(1) for _ in range(2)]
    near = [pick([score(0.5), score(0.5 + 1e-6)], 1.2, rng[0]) for _ in range(4000)]
    far = [pick([score(0.2), score(0.7)], 1.2, rng[1]) for _ in range(4000)]
    assert near == far
    # P[1 + noise > noise'] with two candidates.
    expected = 0.5 * (1 + math.erf(1 / (1.2 * 2)))
    assert np.mean(near) == pytest.approx(expected, abs=0.03)


def test_a_candidate_outside_the_gate_has_no_chance() -> None:
    rng = np.random.default_rng(2)
    items = [score(0.9, False), score(0.1, True, 0.6), score(0.9, True, 0.5), score(0.2, True, 0.55)]
    assert {pick(items, 1.2, rng) for _ in range(200)} == {1, 3}
    assert {pick(items[:1], 1.2, rng)} == {0}


def test_a_run_and_its_card(tmp_path: Path, corpus: PrivateCorpus) -> None:
    settings = config(tmp_path / "run")
    result = run(settings, corpus)
    assert len(result.texts) == 20
    path = result.folder / "release/privacy_card.json"
    card, _ = read_card(path)
    assert card.statement == result.statement == statement_of(settings, corpus)
    assert "nominal epsilon" in card.statement and "No finite epsilon holds." in card.statement
    assert card.figures == () and card.choice is None and card.inputs.epsilon is None
    assert "nominal epsilon 4" in str(card.releases[0].parameters["reason"])
    # Its noise comes from the experiment's seed.
    page = (result.folder / "release/privacy_card.md").read_text()
    assert "- Noise: none that a guarantee rests on" in page and "secure source" not in page
    ledger = read_run(tmp_path / "run/private/ledger.sqlite")
    assert check_card(path, ledger=ledger) == []
    assert run(settings, corpus).texts == result.texts
    assert result.counts["second tries"] > 0


def test_the_choice_differs_from_the_best_one(tmp_path: Path, corpus: PrivateCorpus) -> None:
    published = run(config(tmp_path / "a"), corpus)
    best = run(config(tmp_path / "b", method="rpsg", guarantee="none"), corpus)
    assert {item.text for item in published.texts} != {item.text for item in best.texts}


def test_plan_and_refusals(tmp_path: Path, corpus: PrivateCorpus) -> None:
    assert plan_releases(config(tmp_path), corpus)[0].cost == "epsilon infinite: noise of nominal epsilon 4"
    with pytest.raises(ConfigError, match="guarantee: none"):
        config(tmp_path, guarantee="selection", epsilon=4)
