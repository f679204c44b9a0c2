import json
import re
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import rpsg
from rpsg import pipeline, registry
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, DataError, PrivacyError, PrivateDataError, RunDirError
from rpsg.llm.fake import FakeTextModel
from rpsg.pipeline import plan, run, statement_of, with_folder
from rpsg.privacy.noise import FixedNoise
from rpsg.result import RunResult
from rpsg.stages.refine import Refinery
from rpsg.types import PrivateCorpus, PrivateRecord, PrivateVariant, Progress

MARKER = "Zyxwvutsrq"


def config(folder: Path, **changes: object) -> RunConfig:
    values: dict[str, object] = {
        "guarantee": "none",
        "n": 20,
        "models": {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": None},
        "abstract": {"n_samples": 6, "max_tokens": 40},
        "write": {"min_length": 20, "max_length": 40, "n_drafts": 2},
        "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
        "evaluate": {"enabled": False},
        "output": {"folder": str(folder)},
    }
    return RunConfig.parse({**values, **changes})


@pytest.fixture(scope="module")
def corpus() -> PrivateCorpus:
    return read_corpus(sample_path("posts_train.jsonl"), label_columns=("topic", "sentiment"))


def texts_of(result: RunResult) -> list[tuple[str, str]]:
    return sorted((text.text, text.labels["topic"]) for text in result.texts)


@pytest.mark.parametrize("guarantee", ["none", "selection"])
def test_a_run_gives_exactly_what_was_asked_for(
    tmp_path: Path, corpus: PrivateCorpus, guarantee: str
) -> None:
    result = run(config(tmp_path / "run", guarantee=guarantee), corpus)
    assert result.complete and len(result.texts) == 20
    assert result.synthetic.column_names == ["id", "text", "topic", "sentiment"]
    assert len(set(result.synthetic["id"].to_pylist())) == 20
    assert all(re.fullmatch(r"[0-9a-f]{16}", text.text_id) for text in result.texts)
    assert result.counts["texts released"] == 20 and result.counts["tokens written"] > 0


def test_labels_go_from_seed_to_release(tmp_path: Path, corpus: PrivateCorpus) -> None:
    result = run(config(tmp_path / "run"), corpus)
    by_id = {record.record_id: record for record in corpus.records}
    rows = json.loads(
        sqlite3.connect(result.folder / "private/ledger.sqlite")
        .execute("SELECT result FROM entries WHERE label = 'texts'")
        .fetchone()[0]
    )
    for row, text in zip(rows, result.texts, strict=True):
        assert row["text"] == text.text
        assert dict(by_id[row["variant_id"].split("/")[0]].labels) == row["labels"] == dict(text.labels)


def test_files_of_a_run(tmp_path: Path, corpus: PrivateCorpus) -> None:
    changes = {"output": {"folder": str(tmp_path / "run"), "formats": ["jsonl", "csv", "parquet"]}}
    result = run(config(tmp_path / "run", **changes), corpus)
    found = sorted(str(path.relative_to(result.folder)) for path in result.folder.rglob("*"))
    found = [name for name in found if "refill" not in name]
    assert found == [
        "done", "done/choice-first", "done/prepare-filters", "done/released", "done/vote", "manifest.json",
        "private", "private/calls.sqlite", "private/config.yaml", "private/data.json",
        "private/embeddings", "private/embeddings/000000.keys.npy", "private/embeddings/000000.vectors.npy",
        "private/embeddings/000001.keys.npy", "private/embeddings/000001.vectors.npy",
        "private/embeddings/000002.keys.npy", "private/embeddings/000002.vectors.npy",
        "private/embeddings/model.txt",
        "private/events.jsonl", "private/ledger.sqlite", "private/progress.json", "private/rejected.jsonl",
        "private/run.lock", "release",
        "release/README.md", "release/privacy_card.json", "release/privacy_card.md",
        "release/synthetic.csv", "release/synthetic.jsonl", "release/synthetic.parquet",
    ]  # fmt: skip
    assert stat.S_IMODE((result.folder / "private").stat().st_mode) == 0o700
    row = json.loads((result.folder / "release/synthetic.jsonl").read_text().splitlines()[0])
    assert list(row) == ["id", "text", "topic", "sentiment"]
    assert "text" not in json.loads((result.folder / "private/rejected.jsonl").read_text().splitlines()[0])


def test_the_statement_is_everywhere_the_same(tmp_path: Path, corpus: PrivateCorpus) -> None:
    settings = config(tmp_path / "run", guarantee="selection", epsilon=2)
    result = run(settings, corpus)
    page = json.loads((result.folder / "release/privacy_card.json").read_text())
    assert page["statement"] == result.statement
    assert result.statement in (result.folder / "release/privacy_card.md").read_text()
    assert result.statement in (result.folder / "release/README.md").read_text()
    assert statement_of(settings, corpus).startswith(result.statement)
    assert "2-DP (pure, replace-one)" in result.statement
    assert [line["mechanism"] for line in page["releases"]][:2] == ["NoisyMax", "GaussianSum"]


def test_nothing_of_a_private_text_leaves_the_private_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    records = tuple(
        PrivateRecord(
            record_id=f"r{i}",
            unit_id=f"u{i}",
            text=f"{MARKER} wrote about matter{i % 9} and thing{i % 7} {MARKER}{i} when the rain came down.",
        )
        for i in range(120)
    )
    seen: list[str] = []
    folder = tmp_path / "run"
    # Summaries that keep the marker are dropped for the sake of this test's fake models.
    result = run(
        config(folder, n=10, refine={"copied_run": 1, "nll": {"enabled": False}, "pii": {"enabled": False}}),
        PrivateCorpus(records=records),
        on_progress=lambda step: seen.append(repr(step)),
    )
    outside = [path for path in folder.rglob("*") if path.is_file() and "private" not in path.parts]
    assert outside
    printed = capfd.readouterr()
    everything = [path.read_text() for path in outside]
    everything += [printed.out, printed.err, *seen, repr(result.summary()), repr(records[0])]
    everything += [path.read_text() for path in (folder / "private").glob("*.jsonl")]
    assert not any(MARKER.lower() in text.lower() for text in everything)
    # The marker is where it may be, so this test can fail.
    assert (folder / "private/calls.sqlite").exists()


def test_a_second_call_replays_the_first(tmp_path: Path, corpus: PrivateCorpus) -> None:
    settings = config(tmp_path / "run", guarantee="selection")
    first = run(settings, corpus)
    again = run(settings, corpus)
    assert again.texts == first.texts
    assert again.counts["tokens written"] == 0


class Stop(Exception):
    pass


def stop_at(stage: str) -> Callable[[Progress], None]:
    def on_progress(step: Progress) -> None:
        if step.stage == stage:
            raise Stop

    return on_progress


@pytest.mark.parametrize(
    "stage", ["abstract", "choice first", "write, first", "vote", "rewrite, first", "prepare filters"]
)
def test_a_stopped_run_goes_on_to_the_same_texts(tmp_path: Path, corpus: PrivateCorpus, stage: str) -> None:
    whole = run(config(tmp_path / "whole"), corpus)
    settings = config(tmp_path / "stopped")
    with pytest.raises(Stop):
        run(settings, corpus, on_progress=stop_at(stage))
    assert not (tmp_path / "stopped/release").exists()
    assert texts_of(run(settings, corpus)) == texts_of(whole)


def test_votes_are_not_counted_for_texts_that_were_not_voted_on(
    tmp_path: Path, corpus: PrivateCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, hold = config(tmp_path / "run"), pipeline.hold_vote
    with pytest.raises(Stop):
        run(settings, corpus, on_progress=stop_at("vote"))
    with monkeypatch.context() as patch:
        patch.setattr(
            pipeline,
            "hold_vote",
            lambda session, texts, pool, **more: hold(session, texts[::-1], pool, **more),
        )
        with pytest.raises(PrivacyError, match="'vote' was released before, of other texts"):
            run(settings, corpus)
    assert run(settings, corpus).complete


def test_experiment_seed_decides_without_noise(tmp_path: Path, corpus: PrivateCorpus) -> None:
    one, two, other = (
        run(config(tmp_path / name, seed=seed), corpus) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert texts_of(one) == texts_of(two) != texts_of(other)


def test_fixed_noise_shows_in_the_statement(tmp_path: Path, corpus: PrivateCorpus) -> None:
    result = run(config(tmp_path / "run", guarantee="selection"), corpus, noise=FixedNoise(1))
    assert result.statement.startswith("Not private: this run used fixed test noise.")


def test_refill_takes_unused_seeds_and_never_draws_twice(tmp_path: Path, corpus: PrivateCorpus) -> None:
    n = plan(config(tmp_path / "x", n=None), corpus).n_pool
    # Everyone is wanted, and filters drop some: new variants of summaries already chosen must serve.
    settings = config(tmp_path / "run", guarantee="selection", n=n - 5)
    result = run(settings, corpus)
    db = sqlite3.connect(result.folder / "private/ledger.sqlite")
    drawn = [row[0] for row in db.execute("SELECT record_id FROM claimed")]
    assert len(drawn) == len(set(drawn)) <= n
    labels = [
        row[0] for row in db.execute("SELECT label FROM entries WHERE kind = 'release' ORDER BY entry_id")
    ]
    assert labels.count("vote") == 1 and labels[-1] == "texts"
    rows = json.loads(db.execute("SELECT result FROM entries WHERE label = 'texts'").fetchone()[0])
    # One text a seed: a record never serves twice.
    seeds = [row["variant_id"].split("/")[0] for row in rows]
    assert len(seeds) == len(set(seeds)) == len(result.texts)


def test_a_label_that_the_filters_drop_is_refilled(
    tmp_path: Path, corpus: PrivateCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine, rounds = Refinery.refine, []

    def drop_first(self: Refinery, variants: list[PrivateVariant]) -> object:
        rounds.append(len(variants))
        return refine(self, [v for v in variants if len(rounds) > 1 or v.labels["mood"] == "negative"])

    monkeypatch.setattr(Refinery, "refine", drop_first)
    moods = [{"mood": "negative" if i % 10 else "positive"} for i in range(len(corpus))]
    records = tuple(replace(r, labels=mood) for r, mood in zip(corpus.records, moods, strict=True))
    result = run(config(tmp_path / "run", n=40), PrivateCorpus(records=records, label_columns=("mood",)))
    released = Counter(text.labels["mood"] for text in result.texts)
    assert result.complete and len(rounds) > 1
    assert released["positive"] >= 2  # of a quota of 4


def test_what_is_missing_is_said(tmp_path: Path, corpus: PrivateCorpus) -> None:
    changes = {
        "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}, "copied_run": 1, "refill_rounds": 1}
    }
    result = run(config(tmp_path / "run", **changes), corpus)
    assert not result.complete
    (note,) = [note for note in result.notes if "missing" in note]
    assert "of 20 texts are missing after at most 1 refill rounds" in note and "copied run" in note


def test_steps_can_be_switched_off(tmp_path: Path, corpus: PrivateCorpus) -> None:
    changes: dict[str, object] = {
        "vote": {"enabled": False},
        "write": {"rewrite": False, "n_variants": 1, "n_drafts": 1, "min_length": 20, "max_length": 40},
        "refine": {name: {"enabled": False} for name in ("pii", "similarity", "nll")},
    }
    assert run(config(tmp_path / "run", **changes), corpus).complete


def test_a_remote_model_never_reads_private_text(
    tmp_path: Path, corpus: PrivateCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "text_model", lambda *_, **__: FakeTextModel(trust="remote"))
    with pytest.raises(PrivateDataError, match="'fake' is remote"):
        run(config(tmp_path / "run"), corpus)


def test_more_texts_than_seeds_are_refused(tmp_path: Path, corpus: PrivateCorpus) -> None:
    with pytest.raises(ConfigError, match="the largest possible n is 170"):
        run(config(tmp_path / "run", n=171), corpus)
    assert not (tmp_path / "run").exists()


def test_limits_on_calls_may_be_raised_for_the_same_run(tmp_path: Path, corpus: PrivateCorpus) -> None:
    first = run(config(tmp_path / "run", calling={"max_tokens": 10}), corpus)
    again = run(config(tmp_path / "run", calling={"max_tokens": 1000}), corpus)
    assert [item.text for item in again.texts] == [item.text for item in first.texts]


def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path: Path, corpus: PrivateCorpus) -> None:
    run(config(tmp_path / "run"), corpus)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(RunDirError, match="another configuration"):
        run(config(tmp_path / "run", seed=5), corpus)
    with pytest.raises(RunDirError, match="other data"):
        run(config(tmp_path / "run"), PrivateCorpus(records=corpus.records[1:]))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(RunDirError, match="is not empty and holds no run"):
        run(config(tmp_path / "mine"), corpus)


def test_a_run_folder_gets_a_name() -> None:
    folder = with_folder(RunConfig()).output.folder
    assert folder is not None and folder.startswith("runs/")


def test_public_names() -> None:
    assert list(rpsg.__all__) == sorted(rpsg.__all__)
    for name in rpsg.__all__:
        assert getattr(rpsg, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = rpsg.nothing_of_the_kind


def test_noise_that_is_too_small_is_refused_before_anything_is_drawn(
    tmp_path: Path, corpus: PrivateCorpus
) -> None:
    with pytest.raises(PrivacyError, match="ask for a smaller epsilon"):
        run(config(tmp_path / "run", guarantee="selection", epsilon=30), corpus)
    assert not (tmp_path / "run").exists()


def test_labels_that_point_at_a_person_are_refused(tmp_path: Path) -> None:
    records = tuple(
        PrivateRecord(
            record_id=f"r{i}",
            unit_id=f"u{i}",
            text=f"A long enough text about matter{i % 9} that says little, number {i}.",
            labels={"owner": f"zanzibar{i % 6}@mail.example"},
        )
        for i in range(120)
    )
    texts = PrivateCorpus(records=records, label_columns=("owner",))
    with pytest.raises(DataError, match="6 of 6 values of label column 'owner'") as caught:
        run(config(tmp_path / "run", refine={"nll": {"enabled": False}}), texts)
    assert "zanzibar" not in str(caught.value)


def test_a_run_killed_while_it_was_begun_can_be_begun_again(tmp_path: Path, corpus: PrivateCorpus) -> None:
    (tmp_path / "run/private").mkdir(parents=True)
    (tmp_path / "run/private/config.yaml").write_text("{}")
    assert run(config(tmp_path / "run"), corpus).complete
