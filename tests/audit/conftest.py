"""Games over real text, split at random; releases that copy, and releases that cannot."""

import json
from pathlib import Path

import numpy as np
import pytest

from rpsg import data
from rpsg.audit.finding import Game

ROOT = Path(__file__).parents[2]


def read(name: str) -> list[str]:
    return [record.text for record in data.read_corpus(data.sample_path(name)).records]


@pytest.fixture(scope="session")
def abstracts() -> list[str]:
    """1,000 abstracts of one source, in random order."""
    corpus = data.read_corpus(ROOT / "benchmarks/data/pubmed.jsonl")
    texts = [record.text for record in corpus.records]
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


@pytest.fixture(scope="session")
def others() -> list[str]:
    """150 abstracts that are in no game, as a release without a leak."""
    return read("pubmed_test.jsonl")


@pytest.fixture(scope="session")
def posts() -> list[str]:
    texts = read("posts_train.jsonl") + read("posts_test.jsonl")
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


@pytest.fixture(scope="session")
def null_game(abstracts: list[str], others: list[str]) -> Game:
    """500 + 500 abstracts and a release that was made without them."""
    return Game(members=tuple(abstracts[:500]), nonmembers=tuple(abstracts[500:]), synthetic=tuple(others))


@pytest.fixture(scope="session")
def copying_game(abstracts: list[str], others: list[str]) -> Game:
    """The same, and the release repeats 2 % of the members word for word."""
    return Game(
        members=tuple(abstracts[:500]),
        nonmembers=tuple(abstracts[500:]),
        synthetic=(*others, *abstracts[100:110]),
    )


@pytest.fixture(scope="session")
def planted() -> list[list[dict[str, str]]]:
    """The personal details planted in each post of posts_train.jsonl, in file order."""
    lines = data.sample_path("posts_train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line).get("pii") or [] for line in lines]
