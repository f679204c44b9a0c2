from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rpsg.audit.finding import Finding, Game
from rpsg.audit.linkage import linkage, pair_rows, refuse_generator
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, DataError
from rpsg.llm.fake import HashEmbedder
from rpsg.pipeline import run
from rpsg.privacy.ledger import Ledger
from rpsg.privacy.plain import NonPrivateTexts, PaidTexts
from rpsg.privacy.seeds import read_seeds
from rpsg.rundir import RunDir
from rpsg.types import Candidate, PrivateVariant, SyntheticText

RANK = "geometric mean of the ranks of the texts' seeds"
TOP_1 = "share of texts linked to their seed, top 1"


def of(findings: tuple[Finding, ...], attack: str, statistic: str = TOP_1) -> Finding:
    return next(f for f in findings if f.attack == attack and f.statistic == statistic)


def words_kept(text: str, share: float, rng: np.random.Generator) -> str:
    return " ".join(word for word in text.split() if rng.random() < share)


@pytest.fixture(scope="module")
def linked(abstracts: list[str]) -> tuple[Game, dict[int, int]]:
    """100 released texts that hold a tenth of the words of a member each."""
    rng = np.random.default_rng(0)
    members = abstracts[:300]
    game = Game(
        members=tuple(members),
        nonmembers=tuple(abstracts[300:600]),
        synthetic=tuple(words_kept(text, 0.1, rng) for text in members[:100]),
    )
    return game, {i: i for i in range(100)}


def test_texts_with_a_tenth_of_their_seeds_words_are_linked(linked: tuple[Game, dict[int, int]]) -> None:
    game, pairs = linked
    findings = linkage(game, pairs, generator="all-minilm-l6-v2", embedders=[HashEmbedder()])
    ranks = of(findings, "linkage_tfidf", RANK)
    assert ranks.decides and ranks.p_value == 1 / 10_000
    assert 1 <= ranks.low <= ranks.value <= ranks.high < 10 < 50 < ranks.control  # type: ignore[operator]
    by_words = of(findings, "linkage_tfidf")
    assert not by_words.decides and by_words.p_value == 1 / 10_000
    assert by_words.value > 0.5 and by_words.control == 1 / 600  # type: ignore[operator]
    for attack in ("linkage_lsa", "linkage_hash"):
        found = of(findings, attack)
        assert not found.decides and found.p_value == 1 / 10_000
    nearest = of(findings, "linkage_tfidf", "share of texts whose nearest unit is a member")
    assert nearest.value > 0.8 and nearest.p_value < 0.001 and nearest.control == 0.5  # type: ignore[operator]


def test_seeds_dealt_at_random_are_not_linked(linked: tuple[Game, dict[int, int]]) -> None:
    game, pairs = linked
    # Every text is most like some member: only whose it is, is wrong.
    shifted = {i: (j + 1) % 100 for i, j in pairs.items()}
    findings = linkage(game, shifted, generator="")
    assert of(findings, "linkage_tfidf", RANK).p_value > 0.05  # type: ignore[operator]
    found = of(findings, "linkage_tfidf")
    assert found.value < 0.03 and found.p_value > 0.05  # type: ignore[operator]


def test_a_label_that_is_released_beside_a_text_links_it_to_nobody() -> None:
    """The text speaks of its seed's subject and of nothing else that the seed says."""
    rng = np.random.default_rng(3)
    subjects = {name: [f"{name}{i}" for i in range(12)] for name in ("pets", "money", "school", "work")}
    names = rng.choice(list(subjects), 120)

    def about(name: str) -> str:
        return " ".join(rng.choice(subjects[name], 20))

    game = Game(
        members=tuple(f"{about(name)} {' '.join(rng.choice(2000, 10).astype(str))}" for name in names),
        nonmembers=tuple(about(name) for name in rng.choice(list(subjects), 120)),
        synthetic=tuple(about(name) for name in names[:60]),
        member_labels=tuple(names),
    )
    pairs = {i: i for i in range(60)}
    assert of(linkage(game, pairs, generator=""), "linkage_tfidf", RANK).p_value > 0.05  # type: ignore[operator]
    unlabelled = replace(game, member_labels=())
    assert of(linkage(unlabelled, pairs, generator=""), "linkage_tfidf", RANK).p_value < 0.01  # type: ignore[operator]


def test_a_release_made_without_the_data_is_not_linked(null_game: Game) -> None:
    findings = linkage(null_game, {i: i for i in range(150)}, generator="")
    for attack in ("linkage_tfidf", "linkage_lsa"):
        for statistic in (RANK, TOP_1):
            assert of(findings, attack, statistic).p_value > 0.02  # type: ignore[operator]
        nearest = of(findings, attack, "share of texts whose nearest unit is a member")
        assert nearest.p_value > 0.02  # type: ignore[operator]


def test_p_values_of_pairs_that_mean_nothing_are_not_too_small(abstracts: list[str]) -> None:
    rng = np.random.default_rng(4)
    game = Game(
        members=tuple(abstracts[:40]), nonmembers=tuple(abstracts[40:80]), synthetic=tuple(abstracts[80:120])
    )
    small = 0
    for _ in range(8):
        pairs = dict(enumerate(rng.permutation(40).tolist()))
        small += of(linkage(game, pairs, generator=""), "linkage_tfidf", RANK).p_value <= 0.05  # type: ignore[operator]
    assert small <= 2


def test_ties_never_help() -> None:
    # A text without a known word is equally like everyone; a duplicate of the seed is as like as the seed.
    game = Game(members=("red fox", "blue cat", "blue cat"), nonmembers=("x",), synthetic=("zz", "blue cat"))
    found = of(linkage(game, {0: 0, 1: 1}, generator=""), "linkage_tfidf")
    assert found.value == 0.0
    of_one_person = Game(
        members=game.members, nonmembers=("x",), synthetic=game.synthetic, member_units=("a", "b", "b")
    )
    assert of(linkage(of_one_person, {1: 1}, generator=""), "linkage_tfidf").value == 1.0


def test_the_generators_embedder_is_refused_under_any_name() -> None:
    for name in ("all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2", "hf:x/all_MiniLM-L6-v2"):
        with pytest.raises(ConfigError, match="name another"):
            refuse_generator(name, "all-minilm-l6-v2")
    refuse_generator("sentence-t5-base", "all-minilm-l6-v2")
    game = Game(members=("a",), nonmembers=("b",), synthetic=("c",))
    with pytest.raises(ConfigError):
        linkage(game, {}, generator="hash", embedders=[HashEmbedder()])


def test_without_pairs_there_is_no_finding_and_a_wrong_row_is_refused() -> None:
    game = Game(members=("a",), nonmembers=("b",), synthetic=("c",))
    assert linkage(game, {}, generator="") == ()
    with pytest.raises(DataError, match="rows count from 0"):
        linkage(game, {0: 1}, generator="")


def test_pairs_are_read_from_the_ledger_of_a_run(tmp_path: Path) -> None:
    variants = [
        PrivateVariant(variant_id=f"{name}/first.0", record_id=name, text=f"text of {name}")
        for name in ("a", "b/c", "d")
    ]
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        released = ledger.release("texts", NonPrivateTexts(reason="rewrites"), variants)
    assert isinstance(released, tuple)
    texts: list[SyntheticText] = list(released)
    pairs = pair_rows(read_seeds(path), [text.text_id for text in texts], ["d", "a", "b/c"])
    assert {texts[i].text: ["d", "a", "b/c"][j] for i, j in pairs.items()} == {
        "text of d": "d", "text of a": "a", "text of b/c": "b/c",
    }  # fmt: skip
    assert len(pair_rows(read_seeds(path), [text.text_id for text in texts], ["a"])) == 1


def test_the_private_map_of_a_run_names_the_seeds(tmp_path: Path) -> None:
    members = read_corpus(sample_path("posts_train.jsonl"), label_columns=("topic",))
    result = run(
        RunConfig.parse(
            {
                "guarantee": "none",
                "n": 20,
                "models": {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": None},
                "abstract": {"n_samples": 6, "max_tokens": 40},
                "write": {"min_length": 20, "max_length": 40, "n_drafts": 2},
                "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
                "evaluate": {"enabled": False},
                "output": {"folder": str(tmp_path / "run")},
            }
        ),
        members,
    )
    pairs = pair_rows(
        read_seeds(RunDir.open(result.folder).ledger),
        [text.text_id for text in result.texts],
        [record.record_id for record in members.records],
    )
    assert sorted(pairs) == list(range(20)) and len(set(pairs.values())) == 20
    # A text has the labels of the record that it was written from; 35 topics, so not by chance.
    for text, record in pairs.items():
        assert result.texts[text].labels == members.records[record].labels


def test_texts_from_noisy_keys_have_no_seeds(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        candidate = Candidate(variant_id="seed-0/first.0", record_id="seed-0", text="t", labels={})
        ledger.release("texts", PaidTexts(reason="from keys"), [candidate])
    assert read_seeds(path) == {}
