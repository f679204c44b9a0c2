"""`rpsg bench`: cells run once, failures are shown, tables hold means and intervals."""

import csv
import json
import shutil
import stat
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from rpsg.bench import cells
from rpsg.bench.cells import run_bench
from rpsg.bench.check import bench_warnings, check_bench, split
from rpsg.bench.matrix import BenchConfig, Cell, cells_of, name_of
from rpsg.bench.outcomes import Outcome, read_outcome
from rpsg.bench.planning import plan_bench
from rpsg.bench.tables import Figure, make_tables
from rpsg.bench.vectors import KeptVectors
from rpsg.bench.written import write_tables
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, RpsgError, RunDirError
from rpsg.llm.fake import HashEmbedder
from rpsg.pipeline import load_corpus
from rpsg.types import FloatArray

POSTS = sample_path("posts_train.jsonl")
CONFIGS = Path(__file__).parents[2] / "benchmarks/configs"


WRITE = {"min_length": 20, "max_length": 40, "n_drafts": 2}


def config(**changes: object) -> BenchConfig:
    values: dict[str, object] = {
        "n": 20,
        "seeds": [0, 1],
        "data": {"posts": {"path": str(POSTS), "label_columns": ["topic"], "n_units_bound": 300}},
        "methods": {"plain": {"guarantee": "none"}, "copy": {"method": "copy"}},
        "models": ["fake"],
        "settings": {
            "models": {"embed": "hash", "sentiment": None},
            "abstract": {"n_samples": 6, "max_tokens": 40},
            "write": WRITE,
            "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
        },
    }
    return BenchConfig.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    folder = tmp_path_factory.mktemp("bench") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder.parent / "state"))
        return folder, run_bench(config(), folder)


def test_every_cell_is_run_and_judged(done: tuple[Path, list[Outcome]]) -> None:
    folder, outcomes = done
    assert [(item.method, item.seed, item.state) for item in outcomes] == [
        ("plain", 0, "done"), ("copy", 0, "done"), ("plain", 1, "done"), ("copy", 1, "done"),
    ]  # fmt: skip
    # Given and held-out people of two seeds, their shuffled words, and what each cell wrote.
    vectors = list((folder / "vectors").iterdir())
    assert len(vectors) == 3 * 2 + 4 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in vectors)
    names = set(outcomes[0].figures)
    assert all(set(item.figures) == names for item in outcomes)
    assert {name.partition(": ")[0] for name in names} >= {"fidelity", "diversity", "membership"}
    assert all(item.costs["seconds"] > 0 for item in outcomes)
    better = outcomes[0].better
    assert better["fidelity: frechet_distance"] == "lower" and better["leaks: rank of the seed"] == "higher"
    # Of controls and p-values no side is the good one.
    assert names - better.keys() == {name for name in names if "nothing leaked" in name or ": p, " in name}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_copies_are_nearer_to_the_private_texts_than_fake_ones(done: tuple[Path, list[Outcome]]) -> None:
    by_method = {(item.method, item.seed): item.figures for item in done[1]}
    distance = next(name for name in by_method["copy", 0] if "rechet" in name)
    for seed in (0, 1):
        assert by_method["copy", seed][distance] < by_method["plain", seed][distance]


def test_copies_give_their_authors_away(done: tuple[Path, list[Outcome]]) -> None:
    """The positive control: 20 of about 170 given texts are copied, so an attack names these."""
    for seed in (0, 1):
        figures = {item.method: item.figures for item in done[1] if item.seed == seed}
        copied, likeness = "membership: AUC, ngram overlap 5", "membership: AUC, nearest tfidf"
        assert figures["copy"][copied] > 0.54 > figures["plain"][copied]
        assert figures["copy"][likeness] > figures["plain"][likeness]


def test_what_is_done_is_not_done_again(
    done: tuple[Path, list[Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = done
    monkeypatch.setattr(cells, "run", lambda *_, **__: pytest.fail("a cell was run again"))
    assert run_bench(config(), folder) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"holdout": 0.3}, {"settings": {**config().settings, "vote": {"enabled": False}}},
        {"data": {"posts": {"path": str(sample_path("posts_test.jsonl")), "label_columns": ["topic"]}}},
        {"seeds": [1, 2], "methods": {"plain": {"guarantee": "none", "delta": 1e-7}}},
    ],
)  # fmt: skip
def test_cells_of_another_benchmark_are_never_taken_for_this_ones(
    done: tuple[Path, list[Outcome]], changes: dict[str, object]
) -> None:
    with pytest.raises(RunDirError, match="other settings, data, judges or version"):
        run_bench(config(**changes), done[0])


def test_changed_prompt_files_are_another_benchmark(tmp_path: Path) -> None:
    own = tmp_path / "prompts"
    shutil.copytree(str(files("rpsg").joinpath("prompts/posts")), own)
    mine = {**config().settings, "write": {**WRITE, "prompt": str(own)}}
    before = check_bench(config(settings=mine))
    (own / "keywords.txt").write_text("the sea\n")
    after = check_bench(config(settings=mine))
    assert all(before[name] != after[name] for name in before)


def test_a_release_is_judged_alike_in_whatever_order_it_came(
    done: tuple[Path, list[Outcome]], tmp_path: Path
) -> None:
    """Which texts a draw of a figure holds must not depend on the secret order of a release."""
    other = tmp_path / "out"
    again = run_bench(config(seeds=[0], methods={"copy": {"method": "copy"}}), other)
    (first,) = (item for item in done[1] if (item.method, item.seed) == ("copy", 0))
    texts = [
        (folder / f"runs/{first_name}/release/synthetic.jsonl").read_text()
        for folder, first_name in ((done[0], name_of(first)), (other, name_of(first)))
    ]
    assert texts[0] != texts[1]
    assert again[0].figures == first.figures


@pytest.mark.parametrize(
    "changes",
    [{"figures": [1]}, {"figures": {"a: b": "x"}}, {"figures": {"a: b": float("nan")}}, {"state": "zzz"},
     {"method": "another"}, {"seed": "0"}],
)  # fmt: skip
def test_an_outcome_that_was_not_written_by_a_benchmark_is_refused(
    done: tuple[Path, list[Outcome]], tmp_path: Path, changes: dict[str, object]
) -> None:
    name = name_of(done[1][0])
    (tmp_path / "cells").mkdir()
    path = tmp_path / f"cells/{name}.json"
    values = json.loads((done[0] / f"cells/{name}.json").read_text())
    path.write_text(json.dumps(values))
    assert read_outcome(tmp_path, name) == done[1][0]
    path.write_text(json.dumps({**values, **changes}))
    with pytest.raises(RunDirError, match="is not of this version"):
        read_outcome(tmp_path, name)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunDirError, match="is not of this version"):
        read_outcome(tmp_path, name)


def test_costs_are_those_of_the_whole_run_or_none(
    done: tuple[Path, list[Outcome]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = done
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    # Judging was cut short: the run is there, and knows only what its last process did.
    for path in (copied / "cells").glob("*plain*"):
        path.unlink()
    again = run_bench(config(), copied)
    assert [item.costs for item in again] == [item.costs for item in before]
    # The run itself was: what its first process did is not known any more.
    for name in ("cells", "costs"):
        for path in (copied / name).glob("*plain*"):
            path.unlink()
    again = run_bench(config(), copied)
    assert [bool(item.costs) for item in again] == [item.method == "copy" for item in again]


def test_a_cell_that_fails_is_shown_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More texts than there are seeds, and a bug whose message quotes a text.
    methods = {"plain": {"guarantee": "none"}, "copy": {"method": "copy"}}
    settings = config(n=150, seeds=[0], methods=methods)
    with monkeypatch.context() as patch:
        patch.setattr(cells, "run", lambda *_, **__: (_ for _ in ()).throw(ValueError("a private text")))
        outcomes = run_bench(settings, tmp_path / "out")
    assert [item.state for item in outcomes] == ["failed", "failed"]
    assert outcomes[0].reason == "a bug: ValueError"
    write_tables(outcomes, "plain", tmp_path / "out", planned=outcomes)
    page = (tmp_path / "out/tables.md").read_text()
    assert "failed: a bug: ValueError (seed 0)" in page and "a private text" not in page
    outcomes = run_bench(settings, tmp_path / "out")
    assert all("largest possible n" in item.reason for item in outcomes)


def test_fewer_texts_are_not_averaged(tmp_path: Path) -> None:
    strict = {"copied_run": 1, "refill_rounds": 0, "pii": {"enabled": False}, "nll": {"enabled": False}}
    (outcome,) = run_bench(
        config(seeds=[0], methods={"plain": {"guarantee": "none", "refine": strict}}), tmp_path / "out"
    )
    assert outcome.state == "short" and "of 20 texts" in outcome.reason and outcome.figures == {}
    assert "short" in make_tables([outcome])[-1].rows[0].missing[0]


def test_the_split_is_the_same_for_every_method_and_holds_people_out() -> None:
    corpus = read_corpus(POSTS, label_columns=("topic",))
    given, held_out = split(config(), corpus, 3)
    again, _ = split(config(n=30), corpus, 3)
    assert given.records == again.records != split(config(), corpus, 4)[0].records
    assert not {r.record_id for r in given.records} & {r.record_id for r in held_out.records}
    assert len(held_out) == pytest.approx(0.2 * len(corpus), abs=1)


def test_vectors_that_are_kept_are_those_of_the_same_texts_and_model(tmp_path: Path) -> None:
    first, second = CountingEmbedder(), CountingEmbedder()
    texts = ["one text", "another text"]
    kept = KeptVectors(first, tmp_path / "vectors").embed(texts)
    assert np.array_equal(kept, HashEmbedder().embed(texts))
    assert np.array_equal(KeptVectors(second, tmp_path / "vectors").embed(texts), kept)
    assert first.n == 2 and second.n == 0
    swapped = KeptVectors(second, tmp_path / "vectors").embed(texts[::-1])
    assert np.array_equal(swapped, kept[::-1]) and second.n == 2
    other = CountingEmbedder(name="other")
    KeptVectors(other, tmp_path / "vectors").embed(texts)
    assert other.n == 2


class CountingEmbedder(HashEmbedder):
    def __init__(self, *, name: str = "hash") -> None:
        super().__init__()
        self.name, self.n = name, 0

    def embed(self, texts: Sequence[str]) -> FloatArray:
        self.n += len(texts)
        return super().embed(texts)


def test_a_benchmark_cut_short_has_every_data_set_and_method() -> None:
    data = {name: {"path": str(POSTS)} for name in ("one", "two")}
    found = cells_of(config(data=data))
    assert [(cell.seed, cell.data) for cell in found[::2]] == [(0, "one"), (0, "two"), (1, "one"), (1, "two")]


def test_methods_without_epsilon_have_one_cell() -> None:
    found = cells_of(
        config(
            epsilons=[1, 4],
            methods={
                "rpsg": {},
                "copy": {"method": "copy"},
                "public": {"method": "public"},
                "e2e": {"guarantee": "end-to-end"},
            },
            seeds=[0],
        )
    )
    assert [(cell.method, cell.epsilon) for cell in found] == [
        ("rpsg", 1.0), ("rpsg", 4.0), ("copy", None), ("public", None), ("e2e", 1.0), ("e2e", 4.0),
    ]  # fmt: skip
    assert all(cell.run_config(Path("x")).n == 20 for cell in found)


def test_tables_hold_means_and_intervals(tmp_path: Path) -> None:
    one = Outcome(
        data="posts", method="a|b_1", model="m", epsilon=4.0, n=20, seed=0, state="done", reason="",
        card_epsilon=3.9, figures={"utility: accuracy": 0.5}, costs={"seconds": 10.0},
    )  # fmt: skip
    many = [
        replace(one, seed=i, figures={"utility: accuracy": value}) for i, value in enumerate((0.4, 0.5, 0.6))
    ]
    figure = Figure.of([0.4, 0.5, 0.6])
    # Student, two degrees of freedom: 4.303 * 0.1 / sqrt(3).
    assert figure is not None and figure.half == pytest.approx(0.2484, abs=1e-4) and figure.n == 3
    paths = write_tables(many, "a|b_1", tmp_path, planned=many)
    assert [path.name for path in paths] == ["tables.md", "tables.tex", "tables.csv", "differences.csv"]
    assert "0.5 (0.252 to 0.748)" in paths[0].read_text() and "None." in paths[0].read_text()
    assert r"a|b\_1" in paths[1].read_text() and r"95 \%" not in paths[1].read_text()
    rows = list(csv.DictReader(paths[2].read_text().splitlines()))
    assert {row["table"].partition(":")[0] for row in rows} == {
        "Utility",
        "Privacy",
        "Efficiency, for 1,000 texts",
    }
    assert float(rows[0]["low"]) == pytest.approx(0.2516, abs=1e-4) and rows[0]["n_seeds"] == "3"
    assert Figure.of([]) is None and str(Figure.of([1.0])) == "1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"x": {"method": "unknown"}}}, "is no method"),
        ({"methods": {"x": {"method": "augpe"}}}, "data.label_values"),
        ({"methods": {"a b": {}, "a-b": {}}}, "one name"),
        ({"settings": {"writer": 1}}, "unknown configuration key"),
        ({"methods": {"x": {"method": ["rpsg"]}}}, "is no method"),
        ({"methods": {"x" * 300: {}}}, "too long"),
        (
            {"methods": {"x": {"epsilon": 8}}},
            "methods.x.epsilon would be that of some cells only; set epsilons",
        ),
        ({"methods": {"x": {"data": {"min_words": 60}}}}, "methods.x.data would be"),
        ({"settings": {"n": 30}}, "settings.n would be"),
        ({"settings": {"models": {"write": "fake"}}}, "settings.models.write: name the models"),
        ({"settings": {"models": "fake"}}, "settings.models: name a model for each task"),
        ({"language_model": "nowhere/nothing"}, "nowhere/nothing"),
        ({"sentiment_judge": "nowhere/nothing"}, "nowhere/nothing"),
        ({"holdout": 0.01}, "those held out have . texts; figures need 20"),
        ({"data": {"posts": {"path": "nowhere.jsonl"}}}, "nowhere.jsonl does not exist in .*, where this"),
        (
            {"methods": {"x": {"guarantee": "end-to-end"}}, "data": {"posts": {"path": str(POSTS)}}},
            "posts.n_units_b",
        ),
    ],
)
def test_benchmarks_that_cannot_be_run_are_refused_before_they_begin(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(RpsgError, match=message):
        run_bench(config(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_values_given_twice_are_refused() -> None:
    for changes in ({"seeds": [0, 0]}, {"epsilons": [4, 4.0]}, {"n": [20, 20]}):
        with pytest.raises(ValidationError, match="must differ"):
            config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 5}, "n: a whole number of 20 or more, or a list of such"),
        ({"epsilon": 4}, "unknown configuration key 'epsilon'; did you mean 'epsilons'"),
        ({"seeds": 2}, "seeds: input should be a list"),
        ({"methods": ["rpsg"]}, r"methods: input should be a mapping \(key: value\)"),
        ({"reference": "copyy"}, "bench.yaml: reference: 'copyy' is none of the methods"),
    ],
)
def test_messages_say_what_to_write(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    values = config().model_dump(mode="json", exclude_unset=True)
    (tmp_path / "bench.yaml").write_text(json.dumps(values | changes))
    with pytest.raises(ConfigError, match=message):
        BenchConfig.load(tmp_path / "bench.yaml")
    with pytest.raises(ConfigError, match=r"docs/methods\.md"):
        BenchConfig.load(tmp_path / "none.yaml")


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("")
    with pytest.raises(RunDirError, match="not empty and holds no benchmark"):
        run_bench(config(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_too_few_people_for_an_audit_are_said_in_advance(tmp_path: Path) -> None:
    assert bench_warnings(config()) == []
    people = [json.loads(row) for row in POSTS.read_text().splitlines()]
    path = tmp_path / "wards.jsonl"
    path.write_text("".join(json.dumps({**row, "who": i % 45}) + "\n" for i, row in enumerate(people)))
    few = config(data={"wards": {"path": str(path), "unit_column": "who"}})
    (warning,) = bench_warnings(few)
    assert warning.startswith(
        "data.wards: 36 people are given to a method and 9 held out, and an audit needs 20 on each side"
    )


def test_labels_that_nobody_declared_are_said_in_advance() -> None:
    posts = {"path": str(POSTS), "label_columns": ["sentiment"], "n_units_bound": 300}
    values = {"sentiment": ["positive", "negativ"]}
    typo = config(data={"posts": {**posts, "label_values": values}}, methods={"a": {"method": "augpe"}})
    (warning,) = bench_warnings(typo)
    assert warning.startswith("data.posts: ") and "a value of sentiment that data.label_values" in warning


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["smollm2-135m"]}, "did you mean 'smollm2-135m-instruct'"),
        ({"models": [""]}, "has no config.json"),
        ({"models": ["./nowhere"]}, "no such folder"),
        ({"settings": {**config().settings, "models": {"embed": "all-minilm"}}}, "all-minilm-l6-v2"),
    ],
)
def test_a_model_that_is_not_there_is_said_before_the_first_cell(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    wrong = config(**changes)
    with pytest.raises(RpsgError, match=message):
        run_bench(wrong, tmp_path / "out")
    with pytest.raises(RpsgError, match=message):
        list(plan_bench(wrong))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["=1+1", "+x", "", " x", "a\u202eb", "\ud800x", "a\nb"])
def test_a_name_is_seen_as_it_is(name: str) -> None:
    for changes in ({"methods": {name: {"method": "copy"}}}, {"data": {name: {"path": str(POSTS)}}}):
        with pytest.raises(ValidationError, match="stands in tables"):
            config(**changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("[" * 3000, "is not a YAML file"),
        ("n: 20\ndata: {a: 3}\nmethods: {b: {method: copy}}\n", "data.a: must hold `key: value` lines"),
        ("n: 20\ndata: {a: {pth: x}}\nmethods: {b: {method: copy}}\n", "'data.a.pth'; did you mean 'path'?"),
        ("n: 20\ndata: {a: {path: x, zzz: 1}}\nmethods: {b: {}}\n", "known here: .*label_columns"),
        ("n: 20\ndata: {a: {path: x}}\nmethods: {b: {method: agpe}}\n", "did you mean 'augpe'?"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "bench.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        cells_of(BenchConfig.load(path))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RunDirError, match="cannot be made a folder"):
        run_bench(config(), tmp_path / "out")


def test_a_reference_is_one_of_the_methods(tmp_path: Path) -> None:
    values = config().model_dump(mode="json", exclude_unset=True)
    (tmp_path / "bench.yaml").write_text(json.dumps({**values, "reference": "none"}))
    with pytest.raises(ConfigError, match="'none' is none of the methods: plain, copy"):
        BenchConfig.load(tmp_path / "bench.yaml")
    assert config().compared_with == "plain" and config(reference="copy").compared_with == "copy"


def test_each_size_has_its_cells() -> None:
    found = cells_of(config(n=[20, 30], seeds=[0]))
    assert [(cell.n, cell.method) for cell in found] == [
        (20, "plain"), (20, "copy"), (30, "plain"), (30, "copy"),
    ]  # fmt: skip
    assert [cell.run_config(Path("x")).n for cell in found] == [20, 20, 30, 30]


@pytest.mark.parametrize(
    ("name", "n_cells", "n_methods"),
    [("quick", 18, 6), ("small", 45, 10), ("abstracts", 21, 7), ("standard", 78, 9), ("full", 2052, 22)],
)
def test_the_configurations_are_benchmarks(name: str, n_cells: int, n_methods: int) -> None:
    found: list[Cell] = cells_of(BenchConfig.load(CONFIGS / f"{name}.yaml"))
    assert len(found) == n_cells and len({cell.method for cell in found}) == n_methods


def test_a_method_may_have_a_model_of_its_own() -> None:
    methods = {"plain": {"guarantee": "none"}, "own": {"guarantee": "none", "models": {"write": "other"}}}
    found = cells_of(config(models=["a", "b"], methods=methods, seeds=[0]))
    assert [(cell.method, cell.model) for cell in found] == [("plain", "a"), ("plain", "b"), ("own", "other")]
    models = [cell.run_config(Path("x")).models for cell in found]
    assert [(item.abstract, item.write) for item in models] == [("a", "a"), ("b", "b"), ("other", "other")]
    named = config(models=["a"], settings={"models": {"abstract": "reader"}}, methods={"m": {}}, seeds=[0])
    models = [cells_of(named)[0].run_config(Path("x")).models]
    assert (models[0].abstract, models[0].write) == ("reader", "a")


def test_files_in_the_format_of_augpe_are_data_sets(tmp_path: Path) -> None:
    """Columns text, label1, label2, as its data_loader reads them."""
    path = tmp_path / "train.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label1", "label2"])
        for place in range(30):
            review = f'The soup was cold, the waiter\n number {place} said "sorry", and we left.'
            writer.writerow([review, "Business Category: Restaurants", f"Review Stars: {place % 5 + 1}.0"])
    data = {"yelp": {"path": str(path), "label_columns": ["label1", "label2"], "n_units_bound": 300}}
    (cell, *_) = cells_of(config(data=data, seeds=[0]))
    corpus = load_corpus(cell.run_config(tmp_path / "run"))
    assert len(corpus) == 30
    assert corpus.records[6].labels == {
        "label1": "Business Category: Restaurants", "label2": "Review Stars: 2.0",
    }  # fmt: skip
    assert '\n number 6 said "sorry"' in corpus.records[6].text


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_cli import call

    monkeypatch.chdir(tmp_path)
    values = config(seeds=[0], methods={"copy": {"method": "copy"}}).model_dump(
        mode="json", exclude_unset=True
    )
    Path("bench.yaml").write_text(json.dumps(values))
    assert call("bench", "bench.yaml", "-o", "out") == 0
    shown = capsys.readouterr().out
    assert "1/1 posts_copy_fake_epsilon-None_n-20_seed-0" in shown and "do not share them" in " ".join(
        shown.split()
    )
    assert "| copy | " in Path("out/tables.md").read_text()
    assert call("bench", "none.yaml", "-o", "out") == 2


def test_tables_of_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_cli import call

    monkeypatch.chdir(tmp_path)
    values = config(methods={"copy": {"method": "copy"}}).model_dump(mode="json", exclude_unset=True)
    Path("bench.yaml").write_text(json.dumps(values))
    assert call("bench", "bench.yaml", "-o", "out", "--tables") == 2
    assert "no cell that is done" in capsys.readouterr().err and not Path("out").exists()
    assert call("bench", "bench.yaml", "-o", "out", "--cell", "posts_copy_fake_epsilon-None_n-20_seed-1") == 0
    monkeypatch.setattr(cells, "run", lambda *_, **__: pytest.fail("a cell was run"))
    assert call("bench", "bench.yaml", "-o", "out", "--tables") == 0
    for name in ("tables.md", "index.html"):
        assert "2 cells (1 done, 1 not run yet)" in Path("out", name).read_text()
    assert "| copy | " in Path("out/tables.md").read_text()


def test_the_file_in_the_docs_is_a_benchmark(tmp_path: Path) -> None:
    page = (CONFIGS.parents[1] / "docs/methods.md").read_text(encoding="utf-8")
    (tmp_path / "bench.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    found = cells_of(BenchConfig.load(tmp_path / "bench.yaml"))
    # Two methods at two budgets, two that take none, three seeds.
    assert len(found) == (2 * 2 + 2) * 3
