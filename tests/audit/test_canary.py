"""Planting: coins are blinded and independent, the data keep their shape, and the mark follows the texts."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev

import pytest

from rpsg.audit.canary import KINDS, Canary, Secrets, check_plan, read_secrets, to_json
from rpsg.audit.canary_mark import is_planted, mark_path
from rpsg.audit.canary_plant import Planting, Roles, plant, read_data
from rpsg.audit.canary_texts import TextMaker
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, DataError, RunDirError
from rpsg.privacy.state import private_folder
from rpsg.readers import read_chunks
from rpsg.row_files import Wanted
from rpsg.text import words_of
from rpsg.types import PrivateCorpus

PROSE = [record.text for record in read_corpus(sample_path("posts_train.jsonl")).records]
Make = Callable[..., Planting]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    rows = [
        {"id": i, "text": f"my own words number {i} about apples", "topic": "ab"[i % 2], "who": f"u{i // 2}"}
        for i in range(700)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def build(name: str = "planted.jsonl", **changes: object) -> Planting:
        values: dict[str, object] = {
            "source": tmp_path / "data.jsonl",
            "output": tmp_path / name,
            "secrets": tmp_path / f"{name}.secrets.json",
            "n_canaries": 60,
            "kinds": KINDS,
            "repetitions": (1,),
            "style": "posts",
            "roles": Roles(labels=("topic",)),
        }
        return Planting(**{**values, **changes})  # type: ignore[arg-type]

    return build


def put(planting: Planting, *, seed: int | None = None) -> Secrets:
    chance = None if seed is None else random.Random(seed)
    return plant(planting, read_data(planting), lambda _: PROSE, chance=chance)


def texts_of(path: Path) -> list[str]:
    return [record.text for record in read_corpus(path, min_words=1).records]


def test_what_fell_on_in_is_in_the_data_and_the_rest_is_not(make: Make) -> None:
    planting = make()
    secrets = put(planting)
    planted = Counter(texts_of(planting.output))
    for canary in secrets.canaries:
        assert planted[canary.text] == (canary.n_rep if canary.is_in else 0)
    assert len([text for text in planted if "apples" in text]) == 700
    assert {canary.kind for canary in secrets.canaries} == set(KINDS)
    assert read_secrets(planting.secrets) == secrets


def test_coins_are_fair_and_independent_of_kind_label_and_length(make: Make) -> None:
    canaries = [
        canary for i in range(30) for canary in put(make(f"p{i}.jsonl"), seed=i).canaries
    ]  # 1800 coins: half is 900, standard deviation 21
    assert 815 <= sum(canary.is_in for canary in canaries) <= 985
    for kind in KINDS:
        part = [canary for canary in canaries if canary.kind == kind]
        assert 0.4 <= sum(canary.is_in for canary in part) / len(part) <= 0.6
    sides = [[len(words_of(c.text)) for c in canaries if c.is_in is side] for side in (False, True)]
    # The difference of means has a standard deviation of two of the lengths' over the root of their number.
    assert abs(mean(sides[0]) - mean(sides[1])) < 3.5 * 2 * pstdev(sides[0] + sides[1]) / 1800**0.5
    labels = [Counter(c.labels["topic"] for c in canaries if c.is_in is side) for side in (False, True)]
    assert all(0.42 <= side["a"] / side.total() <= 0.58 for side in labels)


def test_no_file_but_the_secrets_tells_a_coin(make: Make, tmp_path: Path) -> None:
    planting = make()
    secrets = put(planting)
    state = private_folder("canaries")
    others = [path for folder in (tmp_path, state) for path in folder.rglob("*") if path.is_file()]
    others = [path for path in others if path not in (planting.secrets, planting.output, planting.source)]
    assert {path.name for path in others} == {"planted.jsonl.canaries", *(p.name for p in state.iterdir())}
    for path in others:
        content = path.read_text()
        assert not any(canary.canary_id in content or canary.text in content for canary in secrets.canaries)
        values = json.loads(content)
        # Every canary is in it, in or out, in an order of its own.
        assert len(values["tags"]) == 60 and values["tags"] == sorted(values["tags"])
    assert all(path.stat().st_mode & 0o77 == 0 for path in (planting.secrets, planting.output, *others))
    assert repr(secrets) == "Secrets(<60 canaries>)"
    assert all(canary.text not in repr(canary) and "True" not in repr(canary) for canary in secrets.canaries)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_planted_file_keeps_rows_columns_and_kinds_of_id(make: Make, suffix: str) -> None:
    planting = make(f"planted.{suffix}", roles=Roles(labels=("topic",), unit="who"), repetitions=(1, 4))
    # 60 canaries, half of them four times, are 150 records: too many for 700.
    with pytest.raises(ConfigError, match="hold up to 77"):
        read_data(planting)
    planting = make(
        f"planted.{suffix}", roles=Roles(labels=("topic",), unit="who"), repetitions=(1, 4), n_canaries=28
    )
    secrets = put(planting)
    (chunk,) = read_chunks(planting.output, Wanted(required=("id", "text", "topic", "who")))
    columns = chunk.columns
    assert {int(str(value)) for value in columns["id"]} >= set(range(700))
    own = [text for text in columns["text"] if "apples" in str(text)]
    assert own == [f"my own words number {i} about apples" for i in range(700)]
    corpus = read_corpus(planting.output, label_columns=("topic",), unit_column="who", min_words=1)
    units: dict[str, set[str]] = {}
    for record in corpus.records:
        units.setdefault(record.text, set()).add(record.unit_id)
    known = {f"u{i}" for i in range(350)}
    for canary in secrets.canaries:
        if canary.is_in:
            # One person's, however often repeated, and nobody else's.
            assert units[canary.text] == {canary.unit_id} and canary.unit_id not in known
    assert secrets.has_units and list(secrets.groups()) == [1]


def test_without_units_a_repeated_canary_is_a_group(make: Make) -> None:
    secrets = put(make(repetitions=(1, 4), n_canaries=28))
    assert {size: {c.n_rep for c in part} for size, part in secrets.groups().items()} == {1: {1}, 4: {4}}


def test_the_four_kinds(make: Make) -> None:
    secrets = put(make())
    prose = " ".join(PROSE)
    vocabulary = {word for text in PROSE for word in words_of(text)}
    for canary in secrets.of_kind("sampled"):
        assert canary.text in {" ".join(text.split()) for text in PROSE}
    for canary in secrets.of_kind("suffix"):
        words = words_of(canary.text)
        assert set(words) <= vocabulary and len(words) >= 10 and canary.text not in prose
    for canary in secrets.of_kind("tail"):
        assert len([word for word in words_of(canary.text) if word not in vocabulary]) >= 6
    facts = [canary.fact for canary in secrets.of_kind("fact") if canary.fact is not None]
    for canary, fact in zip(secrets.of_kind("fact"), facts, strict=True):
        assert fact.value in fact.choices and len(set(fact.choices)) == 10
        assert all(str(part) in canary.text for part in (fact.place, fact.number, fact.value))
        assert not {fact.place.lower(), *fact.choices} & vocabulary
    assert len({name for fact in facts for name in (fact.place, *fact.choices)}) == 11 * len(facts)


def test_no_canary_quotes_a_private_text(make: Make) -> None:
    assert not any("apples" in canary.text for canary in put(make()).canaries)


def test_public_texts_that_are_the_data_are_refused_and_nothing_is_written(
    make: Make, tmp_path: Path
) -> None:
    planting = make()
    with pytest.raises(DataError, match="1 of 60 public texts are texts of the data") as caught:
        plant(
            planting, read_data(planting), lambda n: [*PROSE[: n - 1], "My own words: number 3 about apples!"]
        )
    assert "apples" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_made_up_names_are_in_no_private_text() -> None:
    def named(avoid: set[str]) -> str:
        maker = TextMaker(public=PROSE, style="abstracts", avoid=avoid, chance=random.Random(1))
        fact = maker.make("fact")[1]
        assert fact is not None
        return fact.place.lower()

    assert named({named(set())}) != named(set())


def test_the_mark_follows_the_texts(make: Make, tmp_path: Path) -> None:
    planting = make()
    put(planting)
    corpus = read_corpus(planting.output, min_words=1)
    assert is_planted(corpus)
    # Another format, other case and spaces, another name.
    rows = [{"words": record.text.upper().replace(" ", "  ")} for record in corpus.records]
    (tmp_path / "copy.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert is_planted(read_corpus(tmp_path / "copy.jsonl", text_column="words", min_words=1))
    clean = read_corpus(planting.source, min_words=1)
    assert not is_planted(clean, planting.source)
    # A mark beside a file is believed, whatever the state folder knows.
    mark_path(planting.source).write_text("{}")
    assert is_planted(clean, planting.source)


def test_planted_data_are_not_planted_again(make: Make) -> None:
    planting = make()
    put(planting)
    with pytest.raises(DataError, match="already"):
        read_data(make("again.jsonl", source=planting.output))


def test_an_unreadable_mark_is_no_all_clear(make: Make) -> None:
    (private_folder("canaries") / "x.json").write_text("{")
    with pytest.raises(RunDirError, match="cannot be read"):
        is_planted(read_corpus(make().source, min_words=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_canaries": 19}, "at least 20"),
        ({"n_canaries": 78}, "more than 10%"),
        ({"repetitions": (2,)}, "given: 2"),
        ({"repetitions": ()}, "given: nothing"),
        ({"style": "poems"}, "posts, abstracts"),
        ({"output": Path("planted.txt")}, "csv"),
        ({"output": Path("no/where.csv")}, "no folder"),
        ({"output": Path("s.csv"), "secrets": Path("s.csv")}, "three files"),
    ],
)
def test_plans_that_are_refused(make: Make, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_data(make(**changes))


def test_the_refusal_depends_on_no_coin() -> None:
    check_plan(20, (1,), 180)
    with pytest.raises(ConfigError, match="bring 180 records"):
        check_plan(20, (1,), 179)


def test_nothing_is_overwritten_and_nothing_half_written(make: Make, tmp_path: Path) -> None:
    planting = make()
    put(planting)
    with pytest.raises(ConfigError, match="never overwritten"):
        read_data(planting)
    before = sorted(path.name for path in tmp_path.iterdir())
    fresh = make("fresh.jsonl")
    with pytest.raises(DataError, match="public texts"):
        plant(fresh, read_data(fresh), lambda _: PROSE[:5])
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_failure_of_the_last_file_leaves_none(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planting = make("fresh.csv")
    corpus: PrivateCorpus = read_data(planting)
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(
        "rpsg.audit.canary_plant.write_rows", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        plant(planting, corpus, lambda _: PROSE)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert list(private_folder("canaries").iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"version": 2}', '{"version": 1, "canaries": [{"text": "hush"}]}']
)
def test_a_file_that_is_no_secrets_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(DataError, match="no secrets file") as caught:
        read_secrets(path)
    assert "hush" not in str(caught.value)
    with pytest.raises(DataError, match="cannot read"):
        read_secrets(tmp_path / "none.json")


@pytest.mark.parametrize(
    "edited",
    [
        {"canaries": []}, {"guess_shares": []}, {"guess_shares": [0.0]}, {"primary": {"tail": "fact_fuzzy"}},
        {"primary": {"suffix": "lm_rmia"}}, {"primary": {}},
    ],
)  # fmt: skip
def test_edited_secrets_are_none(tmp_path: Path, edited: dict[str, object]) -> None:
    item = Canary(canary_id="1", kind="tail", text="hush", labels={}, n_rep=1, is_in=True)
    values = json.loads(to_json(Secrets(canaries=(item, replace(item, kind="suffix")), has_units=False)))
    path = tmp_path / "s.json"
    path.write_text(json.dumps(values))
    assert len(read_secrets(path).canaries) == 2
    path.write_text(json.dumps(values | edited))
    with pytest.raises(DataError, match="no secrets file"):
        read_secrets(path)


def test_a_canary_does_not_print_itself() -> None:
    canary = Canary(canary_id="1", kind="tail", text="hush", labels={}, n_rep=1, is_in=True)
    assert repr(canary) == "Canary(<tail, 1 records>)"
