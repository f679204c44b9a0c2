import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from rpsg import registry
from rpsg.config import NllConfig, PiiConfig, RefineConfig, SimilarityConfig
from rpsg.data import read_corpus, sample_path
from rpsg.llm.fake import HashEmbedder
from rpsg.llm.surrogate import Surrogate, SurrogateSettings
from rpsg.rng import Streams
from rpsg.stages.refine import (
    PrivateContext,
    Refinery,
    UsualTexts,
    max_cosine,
    nll_threshold,
    private_details,
    representative_gaps,
    similarity_threshold,
)
from rpsg.text import MIN_WORDS, WordRuns, flaw_of
from rpsg.types import Candidate, Embedder, LikelihoodModel, PiiSpan, PrivateRecord, PrivateVariant

Indices = npt.NDArray[np.int64]
SMALL = SurrogateSettings(vocabulary=800, width=64, layers=2, tokens=60_000)
OFF = RefineConfig(
    pii=PiiConfig(enabled=False), similarity=SimilarityConfig(enabled=False), nll=NllConfig(enabled=False)
)


def variant(text: str, record: str = "r", name: str = "v") -> PrivateVariant:
    return PrivateVariant(variant_id=name, record_id=record, text=text)


def lightly_edited(text: str, rng: np.random.Generator) -> str:
    """Every seventh word goes or is doubled into another one, so that no long run is left."""
    words = text.split()
    for i in range(3, len(words), 7):
        words[i] = str(rng.choice(["really", "maybe", "then", "still"]))
    return re.sub(r"\s+", " ", " ".join(words))


class Remembered:
    """Scores a text once, however many splits ask for it."""

    name, trust = "remembered", "local"

    def __init__(self, score: Callable[[list[str]], np.ndarray]) -> None:
        self._score = score
        self._known: dict[str, np.ndarray] = {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._score(new), strict=True))
        return np.stack([self._known[text] for text in texts])

    nll = embed


class Setting:
    """Posts with a surrogate that saw others of their kind, to be split at random again and again."""

    def __init__(self) -> None:
        names = ("posts_train.jsonl", "posts_test.jsonl")
        records = [record for name in names for record in read_corpus(sample_path(name)).records]
        usable = [record for record in records if flaw_of(record.text, min_words=MIN_WORDS) is None]
        order = np.random.default_rng(5).permutation(len(usable))
        surrogate = Surrogate.train([usable[i].text for i in order[:80]], seed=1, settings=SMALL)
        self.surrogate = Remembered(surrogate.nll)
        self.embedder = Remembered(registry.embedder("all-minilm-l6-v2").embed)
        self.records = [usable[i] for i in order[80:]]
        texts = [record.text for record in self.records]
        self.vectors = self.embedder.embed(texts)
        self.nll = self.surrogate.nll(texts)

    def split(self, seed: int) -> "Split":
        order = np.random.default_rng(seed).permutation(len(self.records))
        return Split(self, calibration=order[:60], pool=order[60:160], unrelated=order[160:])


class Split:
    """One division into calibration records, seeds, and texts that have nothing to do with either."""

    def __init__(self, posts: Setting, *, calibration: Indices, pool: Indices, unrelated: Indices) -> None:
        self.posts, self.calibration = posts, calibration
        self.pool = [posts.records[i] for i in pool]
        self.unrelated = [posts.records[i].text for i in unrelated]
        self._indices = pool

    def refinery(self, config: RefineConfig) -> Refinery:
        posts = self.posts
        texts = [record.text for record in (*self.pool, *(posts.records[i] for i in self.calibration))]
        context = PrivateContext(
            runs=WordRuns.build(texts, config.copied_run),
            details=frozenset(),
            seeds=posts.vectors[self._indices],
            calibration=posts.vectors[self.calibration],
            seed_nll={posts.records[i].record_id: float(posts.nll[i]) for i in self._indices},
            calibration_nll=posts.nll[self.calibration],
        )
        return make(context, config, embedder=posts.embedder, surrogate=posts.surrogate)


def make(
    context: PrivateContext,
    config: RefineConfig,
    *,
    embedder: Embedder | None = None,
    surrogate: LikelihoodModel | None = None,
) -> Refinery:
    return Refinery(
        context,
        config=config,
        embedder=embedder or HashEmbedder(),
        surrogate=surrogate,
        pii=None,
        languages=("en",),
        streams=Streams(0),
    )


def empty_context(*texts: str, details: frozenset[str] = frozenset(), n: int = 0) -> PrivateContext:
    embedder = HashEmbedder()
    return PrivateContext(
        runs=WordRuns.build(texts, 12),
        details=details,
        seeds=embedder.embed(texts or ("nothing",)),
        calibration=embedder.embed([f"calibration {i}" for i in range(n)]),
        seed_nll={"r": 3.0},
        calibration_nll=np.linspace(2, 4, n),
    )


@pytest.fixture(scope="module")
def posts() -> Setting:
    return Setting()


def dropped(refinery: Refinery, texts: list[str], records: list[PrivateRecord]) -> list[bool]:
    given = [
        variant(text, record.record_id, f"v{i}")
        for i, (text, record) in enumerate(zip(texts, records, strict=True))
    ]
    accepted, rejected = refinery.refine(given)
    assert len(accepted) + len(rejected) == len(given)
    gone = {item.item_id for item in rejected}
    return [item.variant_id in gone for item in given]


# Without the test for copied runs, similarity and likelihood must do it alone.
@pytest.mark.parametrize("copied_run", [12, 10_000], ids=["all-filters", "without-copied-run"])
def test_copies_are_dropped_and_unrelated_texts_pass(posts: Setting, copied_run: int) -> None:
    """The two filters drop 5 % and 10 % of unrelated texts by construction, so close to 14.5 %."""
    config = RefineConfig(pii=PiiConfig(enabled=False), copied_run=copied_run)
    verbatim: list[bool] = []
    edited: list[bool] = []
    unrelated: list[bool] = []
    for seed in range(40):
        split, rng = posts.split(seed), np.random.default_rng(seed)
        seeds = split.pool
        partners = [seeds[int(i)] for i in rng.integers(0, len(seeds), len(split.unrelated))]
        unrelated += dropped(split.refinery(config), split.unrelated, partners)
        if seed == 0:
            copies = [lightly_edited(record.text, rng) for record in seeds]
            verbatim += dropped(split.refinery(config), [r.text for r in seeds], seeds)
            edited += dropped(split.refinery(config), copies, seeds)
    rates = [float(np.mean(part)) for part in (verbatim, edited, unrelated)]
    print("dropped: verbatim {:.3f}, edited {:.3f}, unrelated {:.3f}".format(*rates), "of", len(unrelated))
    assert rates[0] >= 0.95
    assert rates[1] >= 0.95
    assert rates[2] <= 0.15


def test_the_similarity_threshold_is_the_conformal_one() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.normal(size=(50, 8)).astype(np.float32)
    seeds /= np.linalg.norm(seeds, axis=1, keepdims=True)
    exceeded = []
    for _ in range(400):
        fresh = rng.normal(size=(41, 8)).astype(np.float32)
        fresh /= np.linalg.norm(fresh, axis=1, keepdims=True)
        threshold = similarity_threshold(fresh[:40], seeds, quantile=0.95)
        exceeded.append(bool(max_cosine(fresh[40:], seeds)[0] > threshold))
    assert np.mean(exceeded) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    largest = np.sort(max_cosine(fresh[:40], seeds))
    assert threshold == largest[math.ceil(41 * 0.95) - 1]
    assert similarity_threshold(fresh[:10], seeds, quantile=0.95) == math.inf


def test_max_cosine_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(7, 5)).astype("f4"), rng.normal(size=(23, 5)).astype("f4")
    expected = (one @ two.T).max(axis=1)
    monkeypatch.setattr("rpsg.stages.refine._BLOCK", 4)
    assert max_cosine(one, two) == pytest.approx(expected, abs=1e-6)
    assert max_cosine(one, two[:0]).tolist() == [-1.0] * 7


def test_nll_threshold_is_a_quantile_of_all_gaps() -> None:
    assert nll_threshold(np.array([1.0, 2.0]), np.array([1.5, 4.0]), quantile=0.5) == pytest.approx(1.25)
    gaps = representative_gaps(np.array([0.0, 50.0]), np.arange(101.0))
    assert gaps[0] > 0 and gaps[1] == pytest.approx(0.2)


def test_a_text_with_its_own_seeds_likelihood_is_dropped() -> None:
    class Fixed:
        def nll(self, texts: list[str]) -> np.ndarray:
            return np.asarray([3.0 if "twin" in text else 3.9 for text in texts])

    words = "this is a text about a day at work that was long and hard for everyone"
    given = [variant(f"{words} twin.", name="a")] + [
        variant(f"{words} number {i} of a row {i * 7} {i * 11} {i * 13} {i * 17}.", name=f"b{i}")
        for i in range(9)
    ]
    config = OFF.model_copy(update={"nll": NllConfig()})
    _, rejected = make(empty_context(n=60), config, surrogate=Fixed()).refine(given)  # type: ignore[arg-type]
    assert ("a", "likelihood") in [(item.item_id, item.reason) for item in rejected]


def test_fresh_texts_are_as_usual_as_those_that_the_surrogates_were_trained_on() -> None:
    rng = np.random.default_rng(0)
    words = ["house", "river", "stone", "letter", "winter", "bread", "table", "doctor", "worker", "bottle"]
    written = [
        Candidate(
            variant_id=f"v{i}", record_id=f"r{i}", text=" ".join(rng.choice(words, 40)) + ".", labels={}
        )
        for i in range(100)
    ]
    first, fresh = written[:60], written[60:]
    settings = SurrogateSettings(tokens=200_000, width=96, layers=2)
    usual = UsualTexts.measure(
        first, train=lambda texts: Surrogate.train(texts, seed=1, settings=settings), quantile=0.1
    )
    kept, rejected = usual.keep(first)
    assert (len(kept), len(rejected)) == (54, 6)
    # Judged by a surrogate that knows the first sixty, not one of them would pass.
    kept, rejected = usual.keep(fresh)
    assert len(kept) >= 28 and {item.reason for item in rejected} <= {"likelihood"}
    odd = Candidate(variant_id="odd", record_id="odd", text="zq xj " * 20 + ".", labels={})
    assert usual.keep([odd])[0] == [] and usual.keep([])[0] == []


def test_too_few_calibration_records_switch_filters_off_and_say_so() -> None:
    config = RefineConfig(pii=PiiConfig(enabled=False))
    refinery = make(empty_context(n=39), config)
    assert "they need 40 calibration records, and there are 39" in refinery.notes[0]
    assert make(empty_context(n=40), config).notes == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("Too short.", "too short"),
        ("Here is the post you asked for: I lost my job and I do not know what to do.", "meta text"),
        ("Hoy perdí mi trabajo y no sé qué hacer con la casa y con los niños de mi hermana.", "language"),
        (
            "I walked to the river and there the old mill wheel turned slowly under a grey sky, alone.",
            "copied run",
        ),
        (
            "They said that I should write to Mara Quill about the rent and the broken window today.",
            "personal detail",
        ),
    ],
)
def test_each_flaw_has_its_reason(text: str, reason: str) -> None:
    private = "we saw that there the old mill wheel turned slowly under a grey sky, alone in the dark"
    context = empty_context(private, details=frozenset({"Mara Quill"}))
    _, rejected = make(context, OFF).refine([variant(text)])
    assert [item.reason for item in rejected] == [reason]


def test_near_duplicates_are_dropped_across_calls() -> None:
    refinery = make(empty_context(), OFF)
    text = "I lost my job in spring and since then every bill that comes makes me want to hide from it."
    other = "My sister moved in with two dogs last week, and now the whole house smells of wet fur."
    accepted, _ = refinery.refine([variant(text), variant(other)])
    assert len(accepted) == 2
    _, rejected = refinery.refine([variant(f"{text} Honestly.")])
    assert [item.reason for item in rejected] == ["duplicate"]


def test_details_are_exact_and_strict() -> None:
    class Finder:
        name, trust = "finder", "local"

        def find(self, texts: list[str]) -> list[list[PiiSpan]]:
            kinds = {
                "Mara Quill": "PERSON",
                "Mara ": "PERSON",
                "Wexcombe": "LOCATION",
                "a@b.example": "EMAIL",
            }
            return [
                [
                    PiiSpan(start=t.index(v), end=t.index(v) + len(v), type=k, score=1.0)
                    for v, k in kinds.items()
                    if v in t
                ]
                for t in texts
            ]

    found = private_details(["Mara Quill of Wexcombe, a@b.example", "Mara went"], Finder())  # type: ignore[arg-type]
    assert found == [{"Mara Quill", "a@b.example"}, set()]
