"""Known answers and invariances of the metrics on texts.

The golden self-BLEU values were computed once with NLTK 3.10.4 as the mean over i of
`sentence_bleu(texts[:i] + texts[i + 1:], texts[i], smoothing_function=SmoothingFunction().method1)`.
"""

import math
import random

import numpy as np
import pytest

from rpsg.data import read_corpus, sample_path
from rpsg.evaluate.diversity import diversity_metrics
from rpsg.evaluate.duplicates import near_duplicate_pairs
from rpsg.evaluate.ngrams import count_ngrams, ms_jaccard, self_bleu
from rpsg.evaluate.resampling import Figure, summarise
from rpsg.scores import Comparison, Score, TextSample
from rpsg.text import words_of


def random_texts() -> list[list[str]]:
    rng = random.Random(7)
    return [
        [f"w{min(30, int(rng.expovariate(0.15)))}" for _ in range(rng.randrange(0, 30))] for _ in range(60)
    ]


@pytest.fixture(scope="module")
def posts() -> tuple[str, ...]:
    return tuple(record.text for record in read_corpus(sample_path("posts_test.jsonl")).records)


def test_self_bleu_is_that_of_nltk(posts: tuple[str, ...]) -> None:
    assert self_bleu([words_of(text) for text in posts[:40]]) == pytest.approx(0.033089317712354495, abs=1e-9)
    assert self_bleu(random_texts()) == pytest.approx(0.2212611345570449, abs=1e-9)
    edge = [["a", "b"], ["a", "b"], ["c"], ["c", "d", "e", "f", "g"], []]
    assert self_bleu(edge) == pytest.approx(0.1728023939257491, abs=1e-9)


def test_self_bleu_of_equal_and_of_disjoint_texts() -> None:
    assert self_bleu([["a", "b", "c", "d", "e"]] * 4) == pytest.approx(1.0)
    assert self_bleu([[f"{i}{j}" for j in range(10)] for i in range(5)]) == 0.0
    with pytest.raises(ValueError, match="two texts"):
        self_bleu([["a"]])


def test_a_part_of_the_table_is_the_table_of_a_part() -> None:
    texts = random_texts()
    rows = np.array([3, 4, 11, 30, 59])
    parts = [table.of(rows) for table in count_ngrams(texts)]
    whole = count_ngrams([texts[i] for i in rows])
    for part, other in zip(parts, whole, strict=True):
        assert part.share_distinct() == other.share_distinct()
        assert np.array_equal(part.matches(), other.matches())


def test_distinct_n_and_ms_jaccard_by_hand() -> None:
    tables = count_ngrams([["a", "b", "a", "b"], ["a", "c"], ["a", "b"]], max_order=2)
    assert [table.share_distinct() for table in tables] == [3 / 8, 3 / 5]
    one, other = ([table.of(np.array(rows)).rates() for table in tables] for rows in ([0], [1, 2]))
    # Words: rates (2, 2, 0) and (1, 0.5, 0.5); pairs: ab 2, ba 1 and ab 0.5, ac 0.5.
    assert ms_jaccard(one, other) == pytest.approx(math.sqrt(1.5 / 4.5 * (0.5 / 3.5)))
    assert ms_jaccard(one, one) == 1.0


def test_near_duplicates_are_those_of_the_definition() -> None:
    rng = random.Random(1)
    base = [[f"w{rng.randrange(200)}" for _ in range(40)] for _ in range(60)]
    changed = [[*text[:i], "x", *text[i + 1 :]] for i, text in enumerate(base[:20])]
    texts = [" ".join(text) for text in (*base, *changed)]
    runs = [{tuple(text.split()[i : i + 3]) for i in range(38)} for text in texts]
    expected = {
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if len(runs[i] & runs[j]) / len(runs[i] | runs[j]) >= 0.5
    }
    assert {tuple(pair) for pair in near_duplicate_pairs(texts).tolist()} == expected
    assert len(expected) == 20
    assert near_duplicate_pairs([]).shape == (0, 2)
    assert near_duplicate_pairs(["\U0001f600\U0001f600", "\U0001f389", "\U0001f389"]).tolist() == [[1, 2]]
    assert {i for pair in near_duplicate_pairs(["the same text, again"] * 500).tolist() for i in pair} == set(
        range(500)
    )


def scores_of(synthetic: tuple[str, ...], real: tuple[str, ...]) -> dict[str, Score]:
    half = len(real) // 2
    words = [word for text in real for word in text.split()]
    random.Random(0).shuffle(words)
    shuffled = tuple(" ".join(words[i : i + 50]) for i in range(0, 50 * half, 50))
    comparison = Comparison(
        real=TextSample(texts=real[:half]), holdout=TextSample(texts=real[half:]),
        synthetic=TextSample(texts=synthetic), baseline=TextSample(texts=shuffled), repeats=4,
    )  # fmt: skip
    return {score.name: score for metric in diversity_metrics() for score in metric.score(comparison)}


def test_repeated_and_broken_texts_are_seen(posts: tuple[str, ...]) -> None:
    found = scores_of((posts[0],) * 60, posts)
    assert found["self_bleu"].value == pytest.approx(1.0)
    assert found["duplicates"].value == found["near_duplicates"].value == 1.0
    assert found["repeated_openings"].value == 1.0
    assert found["distinct_1"].value < 0.1 * (found["distinct_1"].reference or 0)
    assert found["ms_jaccard"].value < 0.5 * (found["ms_jaccard"].reference or 0)
    meta = scores_of(tuple(f"Sure, here is number {i} of the posts you want." for i in range(40)), posts)
    assert meta["meta_text"].value == 1.0 and (meta["meta_text"].reference or 0) < 0.1
    assert meta["median_words"].value == 10 and (meta["length_distance"].value or 0) > 20


def test_real_texts_get_what_real_texts_get(posts: tuple[str, ...]) -> None:
    found = scores_of(posts[54:], posts)
    for score in found.values():
        assert score.value is not None and score.reference is not None and score.n == 26
        assert score.value == pytest.approx(score.reference, rel=0.25, abs=0.04), score.name
    assert found == scores_of(posts[54:], posts)
    assert found["ms_jaccard"].uses_private and not found["self_bleu"].uses_private


@pytest.mark.parametrize(("n", "share"), [(60, 0.01), (107, 0.01), (107, 0.02), (500, 0.002)])
def test_the_interval_of_a_rare_share_covers_it(n: int, share: float) -> None:
    # Of 60 texts none is meta text more often than not where 1 in 100 is: that is no certainty.
    rng, covered, worlds = np.random.default_rng(n), 0, 60
    figure = Figure(name="meta_text", better="lower", low=0, high=1, is_share=True)
    for _ in range(worlds):
        rows = rng.random(n) < share
        halves = [float(rng.permutation(rows)[: n // 2].mean()) for _ in range(10)]
        found = summarise(figure, n=n // 2, synthetic=halves, holdout=halves, baseline=halves)
        assert found.low is not None and found.high is not None and found.low < found.high
        covered += found.low <= share <= found.high
    # 95 % of 60 are 57; three standard deviations less are 52.
    assert covered >= 52


def test_a_figure_that_all_draws_agree_on_is_not_certain() -> None:
    for value, low, high in ((1.0, 0.9, 1.0), (0.0, 0.0, 0.1)):
        figure = Figure(name="self_bleu", better="lower", low=0, high=1)
        found = summarise(figure, n=50, synthetic=[value] * 10, holdout=[0.5] * 10, baseline=[0.5] * 10)
        assert found.low is not None and found.high is not None
        assert low < found.low < 1 if value else found.low == 0
        assert found.high == 1 if value else 0 < found.high < high
