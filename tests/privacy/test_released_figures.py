"""Nothing on a privacy card is computed from the private data outside the ledger."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.pipeline import run
from rpsg.privacy.noise import FixedNoise
from rpsg.types import PrivateCorpus


@pytest.fixture(scope="module")
def corpus() -> PrivateCorpus:
    return read_corpus(sample_path("posts_train.jsonl"), label_columns=("topic",))


def card_of(folder: Path, corpus: PrivateCorpus, **changes: object) -> str:
    config = RunConfig.parse(
        {
            "guarantee": "selection",
            "n": 8,
            "n_units_bound": 10_000,
            "models": {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": None},
            "abstract": {"n_samples": 6, "max_tokens": 40},
            "write": {"min_length": 20, "max_length": 40, "n_drafts": 2},
            # A refill round is a line of the ledger, and whether one is needed depends on the data.
            "refine": {"refill_rounds": 0, **{k: {"enabled": False} for k in ("pii", "similarity", "nll")}},
            "output": {"folder": str(folder)},
            **changes,
        }
    )
    result = run(config, corpus, noise=FixedNoise(1))
    assert result.texts
    return (result.folder / "release/privacy_card.json").read_text()


@pytest.mark.parametrize("changes", [{}, {"guarantee": "none"}], ids=["selection", "none"])
def test_runs_on_data_of_another_size_have_the_same_card(
    tmp_path: Path, corpus: PrivateCorpus, changes: dict[str, object]
) -> None:
    fewer = replace(corpus, records=corpus.records[:131])
    cards = {
        n: card_of(tmp_path / str(n), data, **changes)
        for n, data in ((len(corpus), corpus), (len(fewer), fewer))
    }
    ids = {n: json.loads(card)["inputs"]["run_id"] for n, card in cards.items()}
    assert len(set(ids.values())) == 2
    first, second = (cards[n].replace(ids[n], "") for n in cards)
    assert first == second
    # Neither the number of records nor that of seeds or units is on it.
    for n in cards:
        assert f" {n}" not in first


def test_what_differs_in_the_settings_does_differ_on_the_card(tmp_path: Path, corpus: PrivateCorpus) -> None:
    # So that the comparison above is of cards that say something.
    assert '"n_items": 24' in card_of(tmp_path / "a", corpus)
    assert '"n_items": 28' in card_of(tmp_path / "b", corpus, n=10)
