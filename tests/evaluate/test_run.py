import dataclasses
import json
import random
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rpsg import cli
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError, DataError
from rpsg.evaluate.checks import check_samples, check_vectors
from rpsg.evaluate.metrics import chosen_metrics
from rpsg.evaluate.result import schema
from rpsg.evaluate.run import (
    Inputs,
    evaluate,
    evaluate_files,
    evaluate_run,
    prepare,
    read_inputs,
    sample_of,
    shuffle_words,
)
from rpsg.evaluate.utility import NextWordMetric
from rpsg.llm.fake import HashEmbedder
from rpsg.llm.reader import Reader
from rpsg.llm.surrogate import SurrogateSettings
from rpsg.scores import Metric, TextSample
from rpsg.types import FloatArray
from tiny_models import tiny_bert

TRAIN, TEST = sample_path("posts_train.jsonl"), sample_path("posts_test.jsonl")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    return write(tmp_path / "synthetic.jsonl", rows_of(TRAIN)[100:160])


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return write(tmp_path / "real.jsonl", rows_of(TRAIN)[:100])


# --- files in, files out --------------------------------------------------------------------------


def test_it_writes_figures_and_their_schema_and_no_text(tmp_path: Path, real: Path, synthetic: Path) -> None:
    inputs = Inputs(real=real, holdout=TEST, synthetic=synthetic, label_columns=("sentiment",))
    result = evaluate_files(
        inputs, tmp_path / "out", embedder=HashEmbedder(), language_model="none", repeats=3
    )
    written = (tmp_path / "out/metrics.json").read_text()
    page = json.loads(written)
    assert page == json.loads(json.dumps(result.document()))
    assert json.loads((tmp_path / "out/metrics.schema.json").read_text()) == schema()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.json", "metrics.schema.json",
    ]  # fmt: skip
    assert page["rows"] == {"real": 100, "holdout": 107, "synthetic": 60, "baseline": 107}
    for path in (TRAIN, TEST):
        for record in read_corpus(path).records:
            words = record.text.split()
            assert not any(" ".join(words[i : i + 5]) in written for i in range(0, len(words) - 5, 5))
    names = {score["name"] for score in page["scores"]}
    assert {"frechet_distance", "mauve", "self_bleu", "near_duplicates", "label_accuracy sentiment"} <= names
    again = evaluate_files(
        inputs, tmp_path / "again", embedder=HashEmbedder(), language_model="none", repeats=3
    )
    assert again == result


def test_every_score_obeys_the_schema(tmp_path: Path, real: Path, synthetic: Path) -> None:
    inputs = Inputs(real=real, holdout=TEST, synthetic=synthetic)
    page = evaluate_files(inputs, tmp_path / "out", embedder=None, language_model=None, repeats=2).document()
    kinds = {"number": (int, float), "null": type(None), "string": str, "integer": int, "boolean": bool}

    def check(value: object, rule: dict[str, object]) -> None:
        if "enum" in rule:
            assert value in rule["enum"]  # type: ignore[operator]
        if "const" in rule:
            assert value == rule["const"]
        if rule.get("type") == "object":
            assert isinstance(value, dict) and set(value) == set(rule["required"])  # type: ignore[call-overload]
            for key, inner in value.items():
                check(inner, rule["properties"][key])  # type: ignore[index]
        elif rule.get("type") == "array":
            for inner in value:  # type: ignore[attr-defined]
                check(inner, rule["items"])  # type: ignore[arg-type]
        elif "type" in rule:
            names = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
            assert any(isinstance(value, kinds[name]) for name in names)  # type: ignore[arg-type]

    check(page, schema())
    fidelity = [score for score in page["scores"] if score["family"] == "fidelity"]  # type: ignore[attr-defined]
    assert fidelity and all(score["value"] is None and score["reason"] for score in fidelity)


def test_a_run_is_judged_into_its_private_part(tmp_path: Path) -> None:
    records = sample_of(read_corpus(TRAIN))
    parts = [dataclasses.replace(records, texts=records.texts[start : start + 60]) for start in (0, 60, 120)]
    samples = dict(zip(("real", "holdout", "synthetic"), parts, strict=True))
    evaluate_run(tmp_path, samples, embedder=HashEmbedder(), language_model=None)
    assert (tmp_path / "private/scores/metrics.json").is_file()


def test_metrics_keep_the_protocol_and_models_go_by_name(tmp_path: Path) -> None:
    metrics = chosen_metrics(("topic",), "small")
    assert all(isinstance(metric, Metric) for metric in metrics)
    names = [metric.name for metric in metrics]
    assert len(set(names)) == len(names) and {"label topic", "next word"} <= set(names)
    assert "next word" not in [metric.name for metric in chosen_metrics((), "none")]
    decoder = chosen_metrics((), str(tiny_bert(tmp_path)))[-1]
    assert isinstance(decoder, NextWordMetric) and decoder.load is not None
    assert isinstance(decoder.load(SurrogateSettings()), Reader)


# --- bad input ------------------------------------------------------------------------------------


def call(*arguments: str | Path) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["rpsg", *map(str, arguments)])
        cli.main()
    return int(end.value.code or 0)


def test_the_command_prints_a_table(
    tmp_path: Path, real: Path, synthetic: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "120")
    common = ["evaluate", "--real", real, "--holdout", TEST, "--synthetic", synthetic, "-o", tmp_path / "out",
              "--language-model", "none", "--embedder", "hash"]  # fmt: skip
    assert call(*common, "--label-column", "sentiment") == 0
    shown = capsys.readouterr().out
    assert "frechet_distance" in shown and "sinkhorn_divergence" in shown and "utility" in shown
    assert "do not share it" in shown and "nothing about privacy" in shown
    assert call(*common, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"]["synthetic"] == 60


BAD = {
    "same file twice": (["--holdout", "REAL"], "given as --real and as --holdout"),
    "synthetic is real": (["--synthetic", "REAL"], "given as --real and as --synthetic"),
    "no such file": (["--synthetic", "nothing.csv"], "nothing.csv"),
    "missing column": (["--text-column", "txt"], "'text'"),
    "missing synthetic column": (["--synthetic-text-column", "body"], "synthetic.jsonl: there is no column"),
    "missing label": (["--label-column", "topik"], "'topic'"),
    "unknown embedder": (["--embedder", "all-minilm"], "all-minilm-l6-v2"),
    "too few rows": (["--synthetic", "FEW"], "19 usable texts"),
    "empty file": (["--synthetic", "EMPTY"], "empty"),
    "copy of the real file": (["--holdout", "COPY"], "also real texts"),
    "no label in common": (["--label-column", "sentiment", "--synthetic", "LABELS"], "nothing in common"),
    "no word in common": (["--synthetic", "WORDS"], "no word in common"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_gets_one_message(
    name: str, tmp_path: Path, real: Path, synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "REAL": real,
        "FEW": write(tmp_path / "few.jsonl", rows_of(TRAIN)[:19]),
        "EMPTY": write(tmp_path / "empty.jsonl", []),
        "COPY": write(tmp_path / "copy.jsonl", rows_of(real)),
        "LABELS": write(tmp_path / "labels.jsonl", [{**row, "sentiment": "x"} for row in rows_of(synthetic)]),
        "WORDS": write(tmp_path / "words.jsonl", [{"text": f"zzq{i} xxv qqj"} for i in range(30)]),
    }
    arguments, hint = BAD[name]
    given = {"--real": real, "--holdout": TEST, "--synthetic": synthetic, "--embedder": "none"}
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        given[option] = files.get(value, value)  # type: ignore[assignment]
    flat = [part for pair in given.items() for part in pair]
    assert call("evaluate", *flat, "-o", tmp_path / "out", "--language-model", "none") == 2
    printed = capsys.readouterr().err
    errors = [line for line in printed.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and hint in errors[0]
    assert not (tmp_path / "out/metrics.json").exists()


def test_vectors_that_cannot_be_compared() -> None:
    texts = tuple(f"text number {i}" for i in range(30))

    def drawn(*shape: int) -> FloatArray:
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def samples(vectors: object, *, embedder: str = "one") -> dict[str, TextSample]:
        good = TextSample(texts=texts, vectors=drawn(30, 8), embedder="one")
        return {"real": good, "synthetic": TextSample(texts=texts, vectors=vectors, embedder=embedder)}  # type: ignore[arg-type]

    check_vectors(samples(drawn(30, 8)))
    with pytest.raises(ConfigError, match="different models"):
        check_vectors(samples(drawn(30, 8), embedder="other"))
    with pytest.raises(DataError, match="different dimensions"):
        check_vectors(samples(drawn(30, 9)))
    with pytest.raises(DataError, match="30 texts and vectors of shape"):
        check_vectors(samples(drawn(29, 8)))
    broken = drawn(30, 8)
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="1 embeddings of the synthetic data set hold NaN"):
        check_vectors(samples(broken))


@pytest.mark.parametrize(
    ("vectors", "embedder", "message"),
    [
        (np.ones((20, 8), dtype=np.float32), "", "without the name of their model"),
        (np.ones((20, 1), dtype=np.float32), "one", "no embeddings of texts"),
        (np.zeros((20, 8), dtype=np.float32), "one", "no embeddings of texts"),
        (np.ones((20, 8), dtype=np.float32), "one", "no embeddings of texts"),
    ],
)
def test_vectors_that_are_no_embeddings(vectors: FloatArray, embedder: str, message: str) -> None:
    sample = TextSample(texts=tuple(f"text {i}" for i in range(20)), vectors=vectors, embedder=embedder)
    with pytest.raises((ConfigError, DataError), match=message):
        check_vectors({"real": sample})


def test_what_is_written_is_private_and_never_over_another_tools_file(
    tmp_path: Path, real: Path, synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holdout = write(tmp_path / "h.jsonl", rows_of(TEST)[:60])
    arguments = (
        "evaluate", "--real", real, "--holdout", holdout,
        "--synthetic", synthetic, "--embedder", "none", "--language-model", "none", "-o", tmp_path / "out",
    )  # fmt: skip
    assert call(*arguments) == 0 and call(*arguments) == 0
    for path in (tmp_path / "out").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "out/metrics.json").write_text('{"accuracy": 1}')
    assert call(*arguments) == 2 and "not overwritten" in capsys.readouterr().err.replace("\n", " ")
    assert (tmp_path / "out/metrics.json").read_text() == '{"accuracy": 1}'


def test_a_holdout_that_the_texts_repeat_is_refused(
    tmp_path: Path, real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(TRAIN)
    holdout = write(tmp_path / "h.jsonl", rows[100:160])
    copies = write(tmp_path / "s.jsonl", [{**row, "text": f"{row['text']} "} for row in rows[100:160]])
    arguments = (
        "evaluate", "--real", real, "--holdout", holdout,
        "--synthetic", copies, "--embedder", "none", "--language-model", "none", "-o", tmp_path / "out",
    )  # fmt: skip
    assert call(*arguments) == 2
    assert "60 of 60 synthetic texts are holdout texts" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_holdout_of_the_real_texts_in_capitals_is_refused(
    tmp_path: Path, real: Path, synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capitals = [{**row, "text": str(row["text"]).upper()} for row in rows_of(real)]
    shouted = write(tmp_path / "h.jsonl", capitals)
    arguments = ("--real", real, "--holdout", shouted, "--synthetic", synthetic, "-o", tmp_path / "out")
    assert call("evaluate", *arguments, "--embedder", "none", "--language-model", "none") == 2
    assert "holdout texts are also real texts, word for word" in capsys.readouterr().err.replace("\n", " ")


def test_labels_that_the_holdout_spells_otherwise_are_refused() -> None:
    texts = tuple(f"a text with number {i}" for i in range(40))
    samples = {
        name: TextSample(texts=tuple(f"{name} {text}" for text in texts), labels={"mood": (mood, "bad") * 20})
        for name, mood in (("real", "good"), ("synthetic", "good"), ("holdout", "good"))
    }
    samples["holdout"] = TextSample(texts=samples["holdout"].texts, labels={"mood": ("Good", "Bad") * 20})
    with pytest.raises(DataError, match="real and holdout values have nothing in common"):
        prepare(samples, embedder=None)


def test_another_language_has_no_embedding_figures() -> None:
    class English(HashEmbedder):
        name = "all-minilm-l6-v2"

    train, test = (sample_of(read_corpus(path)) for path in (TRAIN, TEST))
    spanish = [
        f"Hoy perdí el trabajo número {i} y no sé cómo voy a pagar el alquiler de mi casa." for i in range(40)
    ]
    samples = {"real": train, "holdout": test, "synthetic": TextSample(texts=tuple(spanish))}
    comparison, notes = prepare(samples, embedder=English(), repeats=2)
    assert any("not English" in note for note in notes)
    result = evaluate(comparison, chosen_metrics((), None), notes=notes)
    assert all(score.value is None for family, score in result.scores if family == "fidelity")


def test_another_language_is_named_whatever_the_embedder() -> None:
    train, test = (sample_of(read_corpus(path)) for path in (TRAIN, TEST))
    spanish = [
        f"Hoy perdí el trabajo número {i} y no sé cómo voy a pagar el alquiler de mi casa." for i in range(40)
    ]
    assert not [note for note in notes_on(train, test, test.texts[:40]) if "most" in note]
    (note,) = [note for note in notes_on(train, test, spanish) if "most" in note]
    assert note.startswith("most synthetic texts are in 'es' and most real ones in 'en'")
    # Short ones, whose language nobody can tell, are no reason for a note.
    assert not [note for note in notes_on(train, test, ["Rent again. The landlord."] * 30) if "most" in note]


def test_a_script_that_is_not_latin_has_no_embedding_figures() -> None:
    class English(HashEmbedder):
        name = "all-minilm-l6-v2"

    # No spaces: by words such a text is too short to tell its language.
    texts = tuple(f"我不知道该怎么办，我的房东从来不回我的信。这是第{i}封信了。" for i in range(60))
    parts = {"real": texts[:20], "holdout": texts[20:40], "synthetic": texts[40:]}
    _, notes = prepare(
        {role: TextSample(texts=part) for role, part in parts.items()}, embedder=English(), repeats=2
    )
    assert any("100% of the real texts are not English" in note for note in notes)


def test_some_texts_of_another_language_are_named_wherever_they_stand() -> None:
    class English(HashEmbedder):
        name = "all-minilm-l6-v2"

    train, test = (sample_of(read_corpus(path)) for path in (TRAIN, TEST))
    german = [
        f"Heute habe ich die Arbeit Nummer {i} verloren und wir wissen nicht weiter." for i in range(300)
    ]
    for n_foreign, expected in ((30, "say nothing of them"), (300, "no metrics on embeddings")):
        texts = (*train.texts, *german[:n_foreign])
        _, notes = prepare(
            {"real": TextSample(texts=texts), "holdout": test, "synthetic": test},
            embedder=English(),
            repeats=2,
        )
        (note,) = [note for note in notes if "not English" in note]
        assert "of the real texts" in note and expected in note


@pytest.mark.parametrize(("n_spanish", "is_read"), [(1, True), (64, False)])
def test_texts_too_short_to_tell_their_language_are_looked_at_together(n_spanish: int, is_read: bool) -> None:
    class English(HashEmbedder):
        name = "all-minilm-l6-v2"

    train, test = (sample_of(read_corpus(path)) for path in (TRAIN, TEST))
    short = [" ".join(text.split()[:5]) for text in train.texts[:64]]
    long = "Hoy perdí el trabajo y no sé cómo voy a pagar el alquiler de mi casa."
    spanish = [long] if n_spanish == 1 else [f"Perdí otro trabajo número {i}" for i in range(64)]
    texts = tuple([*spanish, *short][:64])
    samples = {"real": train, "holdout": test, "synthetic": TextSample(texts=texts)}
    _, notes = prepare(samples, embedder=English(), repeats=2)
    assert any("no metrics on embeddings" in note for note in notes) is not is_read


@pytest.mark.parametrize("change", ["a word more", "unseen", "curly"])
def test_near_copies_are_found(change: str) -> None:
    train, test = (sample_of(read_corpus(path)) for path in (TRAIN, TEST))
    assert not [note for note in notes_on(train, test, test.texts[::2]) if "repeat" in note]
    how = {
        "a word more": lambda text: f"{text} indeed",
        "unseen": lambda text: re.sub(r"\b(\w)", "\\1\u200b", text) + " indeed",
        "curly": lambda text: text.replace("'", "\u2019") + " indeed",
    }[change]
    for source, role in ((train, "real"), (test, "holdout")):
        copied = [how(text) for text in source.texts[:40]]
        (note,) = [note for note in notes_on(train, test, copied) if "nearly" in note]
        assert note.startswith(f"40 of 40 synthetic texts nearly repeat a {role} one (0 of ")
    assert any(
        "copies" in note
        for note in notes_on(train, test, [text.replace("'", "\u2019") for text in train.texts])
    )


SIGNATURE = "kind regards from all of us at the service desk open every day from eight to six " * 4


def test_a_signature_that_all_texts_share_makes_none_a_near_copy_and_hides_none() -> None:
    train, test = (
        TextSample(texts=tuple(f"{text} {SIGNATURE}" for text in sample_of(read_corpus(path)).texts))
        for path in (TRAIN, TEST)
    )
    assert not [note for note in notes_on(train, test, test.texts[::2]) if "nearly" in note]
    copied = [f"so {text}" for text in train.texts[:40]]
    (note,) = [note for note in notes_on(train, test, copied) if "nearly" in note]
    assert note.startswith("40 of 40 synthetic texts nearly repeat a real one (0 of ")


def test_texts_of_one_template_are_no_near_copies_by_chance() -> None:
    rng = np.random.default_rng(0)
    words = ("printer", "router", "scanner", "laptop", "phone"), ("monday", "friday", "today", "lunch")

    def draw() -> str:
        what, where, since = rng.choice(words[0]), rng.integers(1, 40), rng.choice(words[1])
        return f"dear team the {what} in room {where} stopped since {since} and i need it back soon please"

    texts = [draw() for _ in range(360)]
    parts = [TextSample(texts=tuple(texts[i : i + 120])) for i in (0, 120)]
    for start in range(0, 120, 40):
        assert not [note for note in notes_on(*parts, texts[240 + start : 280 + start]) if "nearly" in note]


def test_a_holdout_of_near_copies_is_named() -> None:
    train = sample_of(read_corpus(TRAIN))
    other = TextSample(texts=tuple(f"well {text}" for text in train.texts[:60]))
    notes = notes_on(train, other, sample_of(read_corpus(TEST)).texts)
    assert "60 of 60 holdout texts nearly repeat a real one: the reference is flattered" in notes


def notes_on(real: TextSample, holdout: TextSample, synthetic: Sequence[str]) -> list[str]:
    samples = {"real": real, "holdout": holdout, "synthetic": TextSample(texts=tuple(synthetic))}
    return check_samples(samples)


def test_labels_that_are_mostly_written_otherwise_are_named() -> None:
    train, test = (sample_of(read_corpus(path)) for path in (TRAIN, TEST))
    labels = {"mood": ("Good",) * 38 + ("good", "bad")}
    samples = {
        "real": TextSample(texts=train.texts[:40], labels={"mood": ("good", "bad") * 20}),
        "holdout": TextSample(texts=test.texts[:40], labels={"mood": ("good", "bad") * 20}),
        "synthetic": TextSample(texts=train.texts[100:140], labels=labels),
        "baseline": TextSample(texts=train.texts[100:140]),
    }
    notes = check_samples(samples)
    assert any(
        note.startswith("38 synthetic values of 'mood' are real ones but for capitals") for note in notes
    )
    assert "38 synthetic values of 'mood' are none of the real ones: written otherwise?" in notes
    assert "40 baseline texts are synthetic ones too, so they are no baseline" in notes


@pytest.mark.parametrize("where", ["afile/sub", "/proc/1/foo"])
def test_a_folder_that_cannot_be_made_is_refused_first(
    where: str, tmp_path: Path, real: Path, synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "afile").write_text("x")
    common = ["evaluate", "--real", real, "--holdout", TEST, "--synthetic", synthetic]
    assert call(*common, "-o", tmp_path / where, "--embedder", "none", "--language-model", "none") == 2
    assert "name another folder with -o" in " ".join(capsys.readouterr().err.split())


def test_copies_are_found_by_their_words() -> None:
    train, test = (sample_of(read_corpus(path)) for path in (TRAIN, TEST))
    loud = TextSample(texts=tuple(f"{text.upper()} ." for text in (*train.texts[:15], *test.texts[:12])))
    _, notes = prepare({"real": train, "holdout": test, "synthetic": loud}, embedder=None, repeats=2)
    assert any(note.startswith("15 synthetic texts are copies of real ones") for note in notes)
    assert any(note.startswith("12 synthetic texts are holdout texts") for note in notes)
    few = TextSample(texts=test.texts[:1] * 30)
    with pytest.raises(DataError, match="only 1 of 30 holdout texts are different"):
        prepare({"real": train, "holdout": few, "synthetic": loud}, embedder=None, repeats=2)
    some = TextSample(texts=test.texts[:8] * 4)
    _, notes = prepare({"real": train, "holdout": some, "synthetic": loud}, embedder=None, repeats=2)
    assert "only 8 of 32 holdout texts are different" in notes


def test_one_repeated_text_never_looks_fine() -> None:
    train, test = (sample_of(read_corpus(path)) for path in (TRAIN, TEST))
    samples = {"real": train, "holdout": test, "synthetic": TextSample(texts=(train.texts[0],) * 60)}
    comparison, notes = prepare(samples, embedder=HashEmbedder(), repeats=2)
    assert any("copies of real ones" in note for note in notes)
    assert any("only 1 of 60" in note for note in notes)
    found = {score.name: score for _, score in evaluate(comparison, chosen_metrics((), None)).scores}
    assert found["precision"].value is None and "copies" in found["precision"].reason
    assert found["recall"].value == 0.0 and found["self_bleu"].value == pytest.approx(1.0)


def test_shuffling_keeps_words_and_lengths() -> None:
    sample = sample_of(read_corpus(TEST))
    shuffled = shuffle_words(sample, np.random.default_rng(0))
    before, after = ([text.split() for text in part.texts] for part in (sample, shuffled))
    assert [len(words) for words in before] == [len(words) for words in after]
    assert sorted(word for words in before for word in words) == sorted(
        word for words in after for word in words
    )
    assert before != after


def test_a_few_shared_holdout_texts_are_noted(tmp_path: Path, real: Path, synthetic: Path) -> None:
    mixed = write(tmp_path / "mixed.jsonl", [*rows_of(TEST), *({**rows_of(real)[0], "id": "x"},)])
    samples = read_inputs(Inputs(real=real, holdout=mixed, synthetic=synthetic))
    _, notes = prepare(samples, embedder=None)
    assert any("1 holdout texts are also real" in note for note in notes)


# --- the table: what each metric is meant to see ----------------------------------------------------

# Farther from the reference than the interval of real texts reaches, and in the bad direction.
SEEN_BY = {
    "shuffled words": ["frechet_distance", "mauve", "sinkhorn_divergence", "squared_mmd",
                       "classifier_auc", "kl_divergence", "ms_jaccard"],
    "one repeated text": ["frechet_distance", "recall", "coverage", "mauve", "kl_divergence", "wasserstein",
                          "total_variation", "sinkhorn_divergence", "squared_mmd", "classifier_auc",
                          "self_bleu", "distinct_1", "distinct_2", "distinct_3", "ms_jaccard", "duplicates",
                          "near_duplicates", "repeated_openings", "vocabulary", "length_distance"],
    "unrelated domain": ["frechet_distance", "precision", "recall", "density", "coverage", "mauve",
                         "kl_divergence", "total_variation", "wasserstein", "sinkhorn_divergence",
                         "squared_mmd", "classifier_auc", "ms_jaccard", "unseen_words", "length_distance"],
}  # fmt: skip


@pytest.mark.parametrize("domain", ["posts", "pubmed"])
def test_real_texts_score_near_perfect_and_bad_ones_terribly(domain: str) -> None:
    from rpsg import registry

    other = {"posts": "pubmed", "pubmed": "posts"}[domain]
    texts = {
        name: [
            record.text[:350]
            for part in ("train", "test")
            for record in read_corpus(sample_path(f"{name}_{part}.jsonl")).records
        ]
        for name in (domain, other)
    }
    # The test part of PubMed is newer than its train part: split at random.
    for part in texts.values():
        random.Random(0).shuffle(part)
    real, holdout, fresh = (tuple(texts[domain][i : i + 100]) for i in (0, 100, 200))
    judged = {
        "real texts": fresh,
        "shuffled words": shuffle_words(TextSample(texts=fresh), np.random.default_rng(0)).texts,
        "one repeated text": fresh[:1] * 100,
        "unrelated domain": tuple(texts[other][:100]),
    }
    embedder = registry.embedder("all-minilm-l6-v2")
    samples = {"real": TextSample(texts=real), "holdout": TextSample(texts=holdout)}
    cache = prepare({**samples, "synthetic": samples["holdout"]}, embedder=embedder)[0]
    found = {}
    for name, part in judged.items():
        known = {"real": cache.real, "holdout": cache.holdout, "baseline": cache.baseline}
        comparison, _ = prepare({**known, "synthetic": TextSample(texts=part)}, embedder=embedder, repeats=10)
        scores = evaluate(comparison, chosen_metrics((), None)).scores
        found[name] = {score.name: score for _, score in scores}
    print(f"\n{domain:<22}{'real holdout':>14}" + "".join(f"{name:>20}" for name in judged))
    for name, score in found["real texts"].items():
        shown = "".join(_shown(found[row][name].value) for row in judged)
        print(f"{name:<22}{score.reference:>14.3f}{shown}")
    for name, score in found["real texts"].items():
        assert score.value is not None and score.reference is not None and score.low is not None, name
        # Two real samples differ by chance only: their difference is within twice the interval.
        margin = 2 * ((score.high or 0) - score.low) + 0.02
        assert abs(score.value - score.reference) <= margin, name
    for row, names in SEEN_BY.items():
        for name in names:
            real_score, bad = found["real texts"][name], found[row][name]
            assert bad.value is not None and bad.reference is not None and real_score.high is not None
            assert abs(bad.value - bad.reference) > (real_score.high - (real_score.low or 0)) / 2, (row, name)
            if bad.better != "reference":
                assert (bad.value > bad.reference) == (bad.better == "lower"), (row, name)


def _shown(value: float | None) -> str:
    return f"{'not computable':>20}" if value is None else f"{value:>20.3f}"
