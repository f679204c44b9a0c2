import random
from dataclasses import replace

import numpy as np
import pytest

from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, PrivateDataError
from rpsg.evaluate.run import prepare
from rpsg.evaluate.sentiment import sentiment_agreement
from rpsg.evaluate.utility import LabelMetric, NextWordMetric
from rpsg.llm.surrogate import SurrogateSettings
from rpsg.scores import Comparison, TextSample
from rpsg.types import Sentiment

TINY = SurrogateSettings(vocabulary=500, width=32, layers=2, window=48, tokens=30_000)
THEMES = {
    "money": ["rent", "bank", "debt", "loan", "card", "bill", "cash", "owe"],
    "health": ["doctor", "pain", "clinic", "nurse", "fever", "cough", "bed", "pill"],
    "work": ["boss", "shift", "office", "desk", "hired", "fired", "job", "pay"],
}


def themed(n: int, seed: int, *, right: bool = True) -> TextSample:
    rng = random.Random(seed)
    names = [rng.choice(list(THEMES)) for _ in range(n)]
    texts = tuple(" ".join(rng.choice(THEMES[name]) for _ in range(12)) for name in names)
    labels = names if right else [rng.choice(list(THEMES)) for _ in range(n)]
    return TextSample(texts=texts, labels={"topic": tuple(labels)})


def compare(synthetic: TextSample) -> Comparison:
    return Comparison(real=themed(80, 1), holdout=themed(90, 2), synthetic=synthetic, baseline=themed(80, 3))


def test_labels_learnt_from_good_and_from_wrong_texts() -> None:
    good, f1 = LabelMetric(label="topic").score(compare(themed(80, 4)))
    assert good.value == good.reference == f1.value == 1.0
    assert 0.3 < (good.baseline or 0) < 0.5 and (f1.baseline or 0) < 0.3
    assert good.n == 80
    # All right of this few is no certainty: the interval is exact, not a bootstrap without width.
    assert good.value == 1.0 and good.high == 1.0 and good.low < 0.999  # type: ignore[operator]
    assert f1.low is not None and f1.low < f1.value  # type: ignore[operator]
    wrong = LabelMetric(label="topic").score(compare(themed(80, 4, right=False)))[0]
    assert wrong.value is not None and wrong.value < 0.8
    assert (wrong.low or 0) < wrong.value < (wrong.high or 0)
    assert wrong == LabelMetric(label="topic").score(compare(themed(80, 4, right=False)))[0]


def test_labels_that_cannot_be_learnt_say_why() -> None:
    without = replace(themed(40, 4), labels={})
    scores = LabelMetric(label="topic").score(compare(without))
    assert {score.reason for score in scores} == {"the synthetic texts have no column 'topic'"}
    same = replace(themed(40, 4), labels={"topic": ("money",) * 40})
    assert "fewer than two values" in LabelMetric(label="topic").score(compare(same))[0].reason


def test_macro_f1_needs_some_texts_of_each_label() -> None:
    holdout = themed(40, 2)
    names = ["money"] * 36 + ["health"] * 4
    some = replace(holdout, labels={"topic": tuple(names)})
    accuracy, f1 = LabelMetric(label="topic").score(replace(compare(themed(80, 4)), holdout=some))
    assert accuracy.value is not None and f1.value is None
    assert f1.reason == "4 holdout texts have the label 'health'; 5 of each are the least for an interval"


def test_texts_without_words_of_letters_teach_no_labels() -> None:
    odd = replace(themed(80, 4), texts=("a b c",) * 80)
    scores = LabelMetric(label="topic").score(compare(odd))
    assert {score.reason for score in scores} == {"the training texts have no word of two letters or more"}


def test_nothing_right_among_some_is_no_certainty() -> None:
    held = replace(themed(90, 2), texts=tuple(f"unseen{i} other{i}" for i in range(90)))
    accuracy, _ = NextWordMetric(settings=TINY).score(replace(compare(themed(80, 4)), holdout=held))
    assert accuracy.value == 0.0 and 0.02 < (accuracy.high or 0.0) < 0.1


def test_the_baseline_of_a_model_never_read_the_words_that_it_is_tested_on() -> None:
    samples = {"real": themed(80, 1), "holdout": themed(90, 2), "synthetic": themed(80, 3)}
    samples["holdout"] = replace(samples["holdout"], texts=tuple(f"zebra {i}" for i in range(90)))
    comparison, _ = prepare(samples, embedder=None)
    assert comparison.training_baseline is not None
    assert not any("zebra" in text for text in comparison.training_baseline.texts)
    read = NextWordMetric(settings=TINY).score(comparison)
    given = NextWordMetric(settings=TINY).score(replace(comparison, baseline=comparison.training_baseline))
    assert [score.baseline for score in read] == [score.baseline for score in given]
    with_own, _ = prepare(samples | {"baseline": themed(80, 5)}, embedder=None)
    assert with_own.training_baseline is None


def test_next_word_prefers_texts_like_the_holdout() -> None:
    train = tuple(record.text for record in read_corpus(sample_path("posts_train.jsonl")).records)
    test = tuple(record.text for record in read_corpus(sample_path("posts_test.jsonl")).records)
    words = [word for text in train for word in text.split()]
    random.Random(0).shuffle(words)
    shuffled = tuple(" ".join(words[i * 60 : (i + 1) * 60]) for i in range(100))
    comparison = Comparison(
        real=TextSample(texts=train[:100]), holdout=TextSample(texts=test[:60]),
        synthetic=TextSample(texts=train[100:200]), baseline=TextSample(texts=shuffled),
    )  # fmt: skip
    accuracy, perplexity = NextWordMetric(settings=TINY).score(comparison)
    assert accuracy.value is not None and perplexity.value is not None
    assert accuracy.value == pytest.approx(accuracy.reference, abs=0.03)
    assert perplexity.value == pytest.approx(perplexity.reference, rel=0.15)
    assert (accuracy.low or 0) < accuracy.value < (accuracy.high or 0)
    assert accuracy.baseline is not None and accuracy.baseline < accuracy.value
    assert (perplexity.low or 0) < perplexity.value < (perplexity.high or 0) < (perplexity.baseline or 0)
    assert accuracy.n == 100
    alone = NextWordMetric(settings=TINY, compared=False).score(comparison)
    assert [(score.value, score.low, score.high) for score in alone] == [
        (score.value, score.low, score.high) for score in (accuracy, perplexity)
    ]
    assert [(score.reference, score.baseline) for score in alone] == [(None, None)] * 2


class Keyword:
    """Positive where the text says so."""

    def __init__(self, name: str = "keyword", trust: str = "local") -> None:
        self.name, self.trust = name, trust

    def classify(self, texts: list[str]) -> list[Sentiment]:
        return [
            Sentiment(label="positive" if "good" in text else "negative", confidence=1.0) for text in texts
        ]


def test_sentiment_agreement_by_another_judge() -> None:
    seeds = ["a good day", "a bad day"] * 40
    written = ["so good", "so bad"] * 30 + ["so bad", "so bad"] * 10
    score = sentiment_agreement(
        seeds, written, judge=Keyword(), selected_by="vader", rng=np.random.default_rng(0)
    )
    assert score.value == 0.875 and score.n == 80 and score.uses_private
    assert (score.low or 0) < 0.875 < (score.high or 0) and (score.baseline or 1) < 0.65
    with pytest.raises(ConfigError, match="cannot judge"):
        sentiment_agreement(
            seeds, written, judge=Keyword("vader"), selected_by="vader", rng=np.random.default_rng(0)
        )
    with pytest.raises(PrivateDataError):
        sentiment_agreement(
            seeds, written, judge=Keyword(trust="remote"), selected_by=None, rng=np.random.default_rng(0)
        )
