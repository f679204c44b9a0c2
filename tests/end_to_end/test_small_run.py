"""Small instances of the proofs, with the embedded models on the sample posts."""

import pytest
from measure import STRICT, check_quality, is_strict, planted, quality, released_texts, survivors

from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.pipeline import run
from rpsg.result import RunResult
from rpsg.text import WordRuns

POSTS = sample_path("posts_train.jsonl")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return RunConfig.parse(
        {
            "guarantee": "none",
            "n": 16,
            "data": {"path": str(POSTS), "label_columns": ["topic"]},
            "output": {"folder": str(tmp_path_factory.mktemp("runs") / "posts")},
        }
    )


@pytest.fixture(scope="module")
def result(config: RunConfig) -> RunResult:
    return run(config, read_corpus(POSTS, label_columns=("topic",)))


def test_a_run_with_the_embedded_models_gives_good_texts(config: RunConfig, result: RunResult) -> None:
    assert result.complete
    figures = quality(result.folder, config, baseline=False)
    print(figures)
    assert check_quality(figures) == []


def test_no_released_text_shares_twelve_words_with_a_private_one(result: RunResult) -> None:
    private = WordRuns.build([record.text for record in read_corpus(POSTS).records], 12)
    assert [text for text in released_texts(result.folder) if private.shared_with(text)] == []


def test_no_planted_detail_of_a_strict_type_survives(result: RunResult) -> None:
    strict = [item for item in planted(POSTS) if is_strict(item)]
    assert {kind for kind, _ in strict} == {*STRICT, "PERSON"}
    assert sum(survivors(released_texts(result.folder), strict)) == 0
