import csv
import json
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpsg.data import (
    check_language,
    fingerprint,
    read_corpus,
    sample_path,
    sample_seeds,
    split_calibration,
    to_table,
    write_rows,
)
from rpsg.errors import ConfigError, DataError, MissingExtra, PrivateDataError, RpsgError, RunDirError
from rpsg.types import PrivateCorpus, PrivateRecord, SyntheticText
from rpsg.writers import guard_formula

SECRET = "zebra quilt moonlight ferry teapot"
ROWS = [
    {"id": "a1", "text": "I lost my job in March and moved.", "topic": "layoff", "user": "u1"},
    {"id": "a2", "text": "My rent went up again, twice this year.", "topic": "rent", "user": "u1"},
    {"id": "a3", "text": "We paid off the car, every last cent.", "topic": "debt", "user": "u2"},
]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def json_lines(path: Path, rows: Sequence[object]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def texts(n: int) -> list[str]:
    return [f"A plain text with the number {i} in it." for i in range(n)]


def corpus_of(units: Sequence[str], labels: Sequence[dict[str, str]] | None = None) -> PrivateCorpus:
    records = tuple(
        PrivateRecord(record_id=f"r{i}", unit_id=unit, text=f"text {i}", labels=labels[i] if labels else {})
        for i, unit in enumerate(units)
    )
    columns = tuple(labels[0]) if labels else ()
    return PrivateCorpus(records=records, has_units=True, label_columns=columns)


# --- every format gives the same corpus ----------------------------------------------------------


def as_csv(folder: Path) -> object:
    pd.DataFrame(ROWS).to_csv(folder / "posts.csv", index=False)
    return folder / "posts.csv"


def as_csv_for_windows(folder: Path) -> object:
    content = pd.DataFrame(ROWS).to_csv(index=False, lineterminator="\r\n")
    return write(folder / "posts.csv", b"\xef\xbb\xbf" + content.encode())


def as_tsv(folder: Path) -> object:
    pd.DataFrame(ROWS).to_csv(folder / "posts.tsv", index=False, sep="\t")
    return folder / "posts.tsv"


def as_json_lines(folder: Path) -> object:
    return json_lines(folder / "posts.jsonl", ROWS)


def as_json_suffix(folder: Path) -> object:
    return str(json_lines(folder / "posts.json", ROWS))


def as_parquet(folder: Path) -> object:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "posts.parquet")
    return folder / "posts.parquet"


def as_hugging_face(folder: Path) -> object:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "posts")
    return folder / "posts"


def as_frame(folder: Path) -> object:
    return pd.DataFrame(ROWS, index=[7, 7, 9])


def as_table(folder: Path) -> object:
    return pa.Table.from_pylist(ROWS)


FORMATS = [
    as_csv,
    as_csv_for_windows,
    as_tsv,
    as_json_lines,
    as_json_suffix,
    as_parquet,
    as_hugging_face,
    as_frame,
    as_table,
]


@pytest.mark.parametrize("make", FORMATS)
def test_every_format_gives_the_same_corpus(make: Callable[[Path], object], tmp_path: Path) -> None:
    corpus = read_corpus(make(tmp_path), label_columns=["topic"], unit_column="user")

    assert [record.record_id for record in corpus.records] == ["a1", "a2", "a3"]
    assert [record.unit_id for record in corpus.records] == ["u1", "u1", "u2"]
    assert [record.text for record in corpus.records] == [row["text"] for row in ROWS]
    assert [dict(record.labels) for record in corpus.records] == [{"topic": row["topic"]} for row in ROWS]
    assert corpus.label_columns == ("topic",)
    assert corpus.has_units
    assert corpus.warnings == ()


def test_hugging_face_classes_get_their_names_and_selections_count(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    data = datasets.Dataset.from_dict({"text": texts(4), "label": [0, 1, -1, 1]}, features=features)
    data.select([3, 2, 1]).save_to_disk(tmp_path / "set")
    corpus = read_corpus(tmp_path / "set", label_columns=["label"])
    assert [record.text for record in corpus.records] == [texts(4)[i] for i in (3, 2, 1)]
    assert [dict(record.labels) for record in corpus.records] == [{"label": "good"}, {}, {"label": "good"}]


def test_shipped_samples_can_be_read() -> None:
    expected = {
        "posts_train.jsonl": 213,
        "posts_test.jsonl": 107,
        "pubmed_train.jsonl": 300,
        "pubmed_test.jsonl": 150,
    }
    for name, n in expected.items():
        labels = ("topic", "sentiment") if name.startswith("posts") else ()
        corpus = read_corpus(sample_path(name), label_columns=labels)
        assert len(corpus) == n
        assert all(set(record.labels) == set(labels) for record in corpus.records)
    with pytest.raises(ConfigError, match="posts_train"):
        sample_path("../types.py")


# --- what becomes of single values ---------------------------------------------------------------


def test_rows_without_enough_words_are_skipped_and_counted() -> None:
    frame = pd.DataFrame(
        {"text": ["one two three four five", None, " \n ", "too short", float("nan"), "a b c d e"]}
    )
    corpus = read_corpus(frame)
    assert [record.record_id for record in corpus.records] == ["row-1", "row-6"]
    assert corpus.skipped == {"empty": 3, "too short": 1}
    assert len(read_corpus(frame, min_words=2)) == 3


def test_text_is_kept_but_for_outer_space_and_windows_line_ends() -> None:
    frame = pd.DataFrame({"text": ["  naïve\r\nline\ttwo  \u2028 e\u0301 ü 😀\n"]})
    assert read_corpus(frame, min_words=1).records[0].text == "naïve\nline\ttwo  \u2028 e\u0301 ü 😀"


def test_without_unit_and_id_columns_every_row_is_its_own_unit() -> None:
    corpus = read_corpus(pd.DataFrame({"text": texts(3)}))
    assert [record.unit_id for record in corpus.records] == ["row-1", "row-2", "row-3"]
    assert not corpus.has_units


def test_column_id_that_names_units_is_not_the_rows_id() -> None:
    corpus = read_corpus(pd.DataFrame({"id": [5, 5], "text": texts(2)}), unit_column="id")
    assert [(record.record_id, record.unit_id) for record in corpus.records] == [
        ("row-1", "5"),
        ("row-2", "5"),
    ]


def test_numbers_become_the_same_key_in_every_column_type() -> None:
    frame = pd.DataFrame({"text": texts(3), "user": [1.0, 2.0, 1.0], "stars": [4, None, 5]})
    corpus = read_corpus(frame, unit_column="user", label_columns=["stars"])
    assert [record.unit_id for record in corpus.records] == ["1", "2", "1"]
    assert [dict(record.labels) for record in corpus.records] == [{"stars": "4"}, {}, {"stars": "5"}]


def test_missing_and_blank_labels_are_absent(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "text,x,y\n" + "".join(f"{t},{v}\n" for t, v in zip(texts(3), ["p,q", ",q", " ,"], strict=True)),
    )
    labels = [dict(record.labels) for record in read_corpus(path, label_columns=["x", "y"]).records]
    assert labels == [{"x": "p", "y": "q"}, {"y": "q"}, {}]


def test_json_rows_may_lack_keys(tmp_path: Path) -> None:
    path = json_lines(
        tmp_path / "a.jsonl", [{"other": 1}, {"text": texts(1)[0]}, {"text": texts(2)[1], "topic": "x"}]
    )
    corpus = read_corpus(path, label_columns=["topic"])
    assert corpus.skipped["empty"] == 1
    assert [dict(record.labels) for record in corpus.records] == [{}, {"topic": "x"}]


def test_repeated_texts_warn_only_without_units() -> None:
    frame = pd.DataFrame({"text": [SECRET, SECRET, SECRET, texts(1)[0]], "user": list("aabc")})
    (warning,) = read_corpus(frame).warnings
    assert warning.startswith("2 rows repeat")
    assert SECRET not in warning
    assert read_corpus(frame, unit_column="user").warnings == ()


def test_rows_just_below_the_limit_are_read_from_csv(tmp_path: Path) -> None:
    long = "word " * 199_999
    path = write(tmp_path / "a.csv", f'text,x\n"{long}",1\n')
    before = csv.field_size_limit(70_000)
    try:
        assert len(read_corpus(path).records[0].text) == len(long) - 1
        assert csv.field_size_limit() == 70_000
    finally:
        csv.field_size_limit(before)


# --- bad input -----------------------------------------------------------------------------------


def refuse(kind: type[RpsgError], source: object, *words: str, **options: object) -> str:
    """Reads, expects an error whose message has these words and, like its traceback, no private text."""
    with pytest.raises(kind) as caught:
        read_corpus(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    for word in words:
        assert word in message
    assert "\n" not in message
    chain: BaseException | None = caught.value
    while chain is not None:
        printed = "".join(traceback.format_exception_only(chain)) + repr(chain.__dict__) + repr(chain.args)
        assert not any(word in printed for word in SECRET.split())
        chain = chain.__context__
    return message


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "posts.csv", "text\n")
    refuse(DataError, tmp_path / "post.csv", "does not exist", "did you mean", "posts.csv")
    refuse(DataError, tmp_path / "no" / "posts.csv", "nor does its folder")


def test_unknown_suffix(tmp_path: Path) -> None:
    refuse(DataError, write(tmp_path / "a.xlsx", SECRET), "'.xlsx'", ".csv", ".jsonl", ".parquet")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_empty_file(suffix: str, tmp_path: Path) -> None:
    refuse(DataError, write(tmp_path / f"a.{suffix}", ""), "is empty")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_file_of_blank_lines(suffix: str, tmp_path: Path) -> None:
    refuse(DataError, write(tmp_path / f"a.{suffix}", "\n\n\n"), "blank lines only")


def test_columns_without_rows(tmp_path: Path) -> None:
    refuse(DataError, write(tmp_path / "a.csv", "id,text\n"), "no rows")
    refuse(DataError, pd.DataFrame({"text": []}), "no rows")


@pytest.mark.parametrize("make", FORMATS)
def test_missing_column_names_the_nearest_and_all(make: Callable[[Path], object], tmp_path: Path) -> None:
    refuse(
        ConfigError, make(tmp_path), "'txt'", "did you mean 'text'", "'topic'", "'user'", text_column="txt"
    )
    refuse(ConfigError, make(tmp_path), "'topics'", "did you mean 'topic'", label_columns=["topics"])


def test_missing_header_shows_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"1,{SECRET}\n2,{SECRET}\n")
    refuse(ConfigError, path, "no column 'text'", "first line")


@pytest.mark.parametrize(("sign", "words"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_named(tmp_path: Path, sign: str, words: str) -> None:
    path = write(tmp_path / "a.csv", f"text{sign}topic\n{SECRET}{sign}rent\n")
    refuse(ConfigError, path, "no column 'text'", f"separated by {words}")


def test_columns_in_two_roles() -> None:
    frame = pd.DataFrame(ROWS)
    refuse(ConfigError, frame, "'topic'", "twice", label_columns=["topic", "topic"])
    refuse(ConfigError, frame, "'text'", "cannot be labels", label_columns=["text"])
    refuse(ConfigError, frame, "'user'", "cannot be labels", label_columns=["user"], unit_column="user")
    refuse(ConfigError, frame, "'id'", "collide", label_columns=["id"])
    refuse(ConfigError, frame, "'text'", "two columns", unit_column="text")


def test_no_usable_text() -> None:
    frame = pd.DataFrame({"text": ["short", None, ""]})
    refuse(DataError, frame, "no usable text", "of 3 rows 2 are empty", "1 have fewer than min_words = 5")


def test_text_column_that_is_not_text(tmp_path: Path) -> None:
    refuse(DataError, pd.DataFrame({"text": [None, 3, 4]}), "'text' is not text", "row 2")
    rows = [{"text": texts(1)[0]}, {"text": [SECRET]}]
    refuse(DataError, json_lines(tmp_path / "a.jsonl", rows), "row 2 holds a list")
    refuse(DataError, pa.table({"text": [SECRET.encode()]}), "row 1 holds a bytes")


@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(("suffix", "row"), [("csv", b"%s\n"), ("jsonl", b'{"text": "%s"}\n')])
def test_wrong_encoding_names_the_byte(head: bytes, suffix: str, row: bytes, tmp_path: Path) -> None:
    first = b"text\n" if suffix == "csv" else row % texts(1)[0].encode()
    content = head + first + row % f"{SECRET} ".encode() + row % f"{SECRET} caf\xe9".encode("latin-1")
    path = write(tmp_path / f"a.{suffix}", content)
    refuse(DataError, path, "not UTF-8", f"byte offset {content.index(0xE9)} ", "line 3")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_utf16_is_named(encoding: str, suffix: str, tmp_path: Path) -> None:
    refuse(
        DataError, write(tmp_path / f"a.{suffix}", f"text\n{SECRET}\n".encode(encoding)), "UTF-16", "UTF-8"
    )


def test_wrong_encoding_in_parquet(tmp_path: Path) -> None:
    broken = pa.array([SECRET.encode() + b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    refuse(DataError, tmp_path / "a.parquet", "cannot be read", "UnicodeDecodeError")


def test_nul_bytes(tmp_path: Path) -> None:
    refuse(
        DataError,
        write(tmp_path / "a.csv", f"text\n{SECRET}\n{SECRET}\0\n"),
        "NUL",
        "line 3",
        "byte offset 74",
    )
    rows = [{"text": SECRET}, {"text": f"{SECRET}\0"}]
    refuse(DataError, json_lines(tmp_path / "a.jsonl", rows), "NUL", "row 2")
    refuse(DataError, pd.DataFrame(rows), "NUL", "row 2")


def test_half_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"text": "{SECRET} \\ud83d"}}\n')
    refuse(DataError, path, "row 1", "surrogate")


def test_duplicate_ids_are_named_by_row() -> None:
    frame = pd.DataFrame({"id": ["x", "zebra", "y", "zebra", "x"], "text": texts(5)})
    refuse(DataError, frame, "'id'", "2 rows repeat", "first row 4 that of row 2")
    assert len(read_corpus(frame.rename(columns={"id": "user"}), unit_column="user")) == 5


def test_blank_ids_and_units() -> None:
    frame = pd.DataFrame({"key": ["x", None, " "], "text": texts(3)})
    refuse(DataError, frame, "id column 'key'", "blank in 2 rows", "first in row 2", id_column="key")
    refuse(DataError, frame, "unit column 'key'", "blank in 2 rows", "first in row 2", unit_column="key")


@pytest.mark.parametrize("unit", ["word ", "wörd "])
def test_row_of_a_megabyte(unit: str, tmp_path: Path) -> None:
    long = unit * (1_000_000 // len(unit.encode()) + 1)
    rows = [{"text": SECRET}, {"text": long}]
    refuse(DataError, json_lines(tmp_path / "a.jsonl", rows), "row 2", "limit is 1,000,000")
    refuse(DataError, pd.DataFrame(rows), "row 2", "limit is 1,000,000")


def test_csv_field_of_more_than_a_megabyte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,x\n" + f'"{SECRET}",1\n' + '"' + "zebra " * 170_000 + '",1\n')
    refuse(DataError, path, "line 3", "1,000,000")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "short one"}\n' + "x" * 3_000),
        ("b.json", "[" + '{"text": "a b c d e f"},' * 200 + "]"),
        ("c.csv", "text,x\na b c d e f,1\n" + "y" * 3_000),
        ("d.csv", "text,x\n" + '"a\n",' * 3_000),
    ],
)
def test_a_row_without_end_is_not_read_to_its_end(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpsg.row_files.MAX_ALL_BYTES", 1_000)
    refuse(DataError, write(tmp_path / name, content), "more than 1,000 bytes", "one row a line")
    rows = [{"text": f"a text of several words {i}"} for i in range(200)]
    assert len(read_corpus(json_lines(tmp_path / "fine.jsonl", rows))) == 200
    fine = "text,x\n" + "".join(f"a text of several words {i},1\n" for i in range(200))
    assert len(read_corpus(write(tmp_path / "fine.csv", fine))) == 200


def test_malformed_json_lines(tmp_path: Path) -> None:
    good = json.dumps({"text": SECRET}) + "\n"
    refuse(
        DataError,
        write(tmp_path / "a.jsonl", good + good[:20] + "\n"),
        "line 2",
        "not valid JSON at character",
    )
    refuse(DataError, write(tmp_path / "b.jsonl", good + "\n" + f'["{SECRET}"]\n'), "line 3", "JSON list")
    refuse(DataError, write(tmp_path / "c.json", f"[{good.strip()},\n{good}]"), "line 1", "JSON array")
    refuse(DataError, write(tmp_path / "d.jsonl", good + "[" * 100_000), "line 2", "nested")
    refuse(DataError, write(tmp_path / "e.jsonl", good + "1" * 5_000), "line 2", "too long")


def test_csv_with_ragged_rows(tmp_path: Path) -> None:
    content = f'id,text\n1,"{SECRET}\n{SECRET}"\n2,{SECRET}, and more\n'
    refuse(DataError, write(tmp_path / "a.csv", content), "line 4 has 3 fields", "header has 2")
    refuse(DataError, write(tmp_path / "b.csv", f"id,text\n1,{SECRET}\n2\n"), "line 3 has 1 fields")


@pytest.mark.parametrize(
    "row", [f'2,"{SECRET}\n3,never closed\n', f'2,"{SECRET}" more\n', f"2,{SECRET}\r {SECRET}\n"]
)
def test_csv_that_cannot_be_parsed_names_the_line_where_the_row_starts(row: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"id,text\n1,{SECRET}\n{row}")
    refuse(DataError, path, "starts in line 3", "quote")


@pytest.mark.parametrize("make", [pa.table, None])
def test_two_columns_of_one_name(make: object, tmp_path: Path) -> None:
    source: object = write(tmp_path / "a.csv", "text,zebra,zebra\na,b,c\n")
    if make:
        source = pa.table([["a"], ["b"], ["c"]], names=["text", "zebra", "zebra"])
    refuse(DataError, source, "columns 2 and 3 have the same name")


def test_label_column_with_too_many_values() -> None:
    def frame(n: int, n_values: int) -> pd.DataFrame:
        return pd.DataFrame({"text": texts(n), "topic": [f"zebra {i % n_values}" for i in range(n)]})

    refuse(DataError, frame(20, 11), "'topic'", "11 different values in 20 rows", label_columns=["topic"])
    assert len(read_corpus(frame(20, 10), label_columns=["topic"])) == 20
    assert len(read_corpus(frame(19, 19), label_columns=["topic"])) == 19


def test_labels_that_are_no_labels(tmp_path: Path) -> None:
    refuse(
        DataError,
        pd.DataFrame({"text": texts(2), "topic": ["", None]}),
        "blank in every row",
        label_columns=["topic"],
    )
    rows = [{"text": texts(1)[0], "pii": []}, {"text": texts(2)[1], "pii": [{"value": "zebra"}]}]
    refuse(
        DataError,
        json_lines(tmp_path / "a.jsonl", rows),
        "'pii'",
        "row 1 holds a list",
        label_columns=["pii"],
    )


def test_frame_column_of_mixed_kinds() -> None:
    frame = pd.DataFrame({"text": texts(2), "user": ["zebra", 7]})
    refuse(DataError, frame, "'user'", "different kinds", unit_column="user")


@pytest.mark.parametrize("content", [b"PAR1 zebra PAR1", b"zebra" * 100])
def test_damaged_parquet(content: bytes, tmp_path: Path) -> None:
    refuse(DataError, write(tmp_path / "a.parquet", content), "no parquet file")


def test_damaged_parquet_body(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"{SECRET} {i}" for i in range(1000)]}), path)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    refuse(DataError, write(path, bytes(content)), "damaged")


def test_folder_that_is_no_data_set(tmp_path: Path) -> None:
    refuse(DataError, tmp_path, "save_to_disk")
    write(tmp_path / "posts.csv", "text\n")
    refuse(DataError, tmp_path, "name a file in it: posts.csv")
    write(tmp_path / "state.json", "{}")
    refuse(DataError, tmp_path, "damaged Hugging Face")


def test_folder_with_splits_names_them(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "set")
    refuse(DataError, tmp_path / "set", "test, train", str(tmp_path / "set" / "test"))
    assert len(read_corpus(tmp_path / "set" / "train")) == 3


def test_hugging_face_folder_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = as_hugging_face(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    refuse(MissingExtra, folder, "rpsg[hf]")


def test_other_objects() -> None:
    refuse(DataError, [{"text": SECRET}], "list", "DataFrame")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_language_that_the_models_do_not_write(share: float) -> None:
    corpus = corpus_of([str(i) for i in range(1200)])
    seen: list[int] = []

    def detect(batch: Sequence[str]) -> list[str]:
        seen.append(len(batch))
        known = len(batch) // 2
        n_english = round(share * known)
        return ["en"] * n_english + ["de"] * (known - n_english) + [""] * (len(batch) - known)

    if share < 0.5:
        with pytest.raises(DataError, match=f"{share:.0%} of the texts.*(en).* in 'de'"):
            check_language(corpus, detect, frozenset({"en"}))
    else:
        check_language(corpus, detect, frozenset({"en"}))
    assert seen == [400]


def test_language_that_cannot_be_told_is_no_reason() -> None:
    check_language(corpus_of(["a", "b"]), lambda batch: ["" for _ in batch], frozenset({"en"}))


# --- calibration part ----------------------------------------------------------------------------

KEY = b"0123456789abcdef"


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    share=st.floats(0.05, 0.6),
    at_most=st.integers(1, 100),
    order=st.randoms(use_true_random=False),
)
def test_split_keeps_units_together(
    sizes: list[int], share: float, at_most: int, order: random.Random
) -> None:
    corpus = corpus_of([f"u{i}" for i, size in enumerate(sizes) for _ in range(size)])
    pool, held_out = split_calibration(corpus, share=share, at_most=at_most, key=KEY)

    assert sorted(map(repr, pool.records + held_out.records)) == sorted(map(repr, corpus.records))
    assert {r.record_id for r in pool.records} | {r.record_id for r in held_out.records} == {
        r.record_id for r in corpus.records
    }
    assert not {r.unit_id for r in pool.records} & {r.unit_id for r in held_out.records}
    assert len(held_out) <= at_most
    # The nearest that whole units allow: within half of the largest unit of the target.
    assert len(held_out) <= share * len(corpus) + max(sizes) / 2
    assert len(held_out) >= min(share * len(corpus), at_most) - max(sizes)

    shuffled = list(corpus.records)
    order.shuffle(shuffled)
    _, again = split_calibration(
        replace(corpus, records=tuple(shuffled)), share=share, at_most=at_most, key=KEY
    )
    assert {r.record_id for r in again.records} == {r.record_id for r in held_out.records}


def test_split_takes_the_share_and_depends_on_the_key() -> None:
    corpus = corpus_of([str(i) for i in range(1000)])
    parts = [split_calibration(corpus, key=key)[1] for key in (KEY, KEY, b"another")]
    ids = [[record.record_id for record in part.records] for part in parts]
    assert [len(part) for part in parts] == [200, 200, 200]
    assert ids[0] == ids[1]
    # Two independent fifths share a twenty-fifth, 40 of 1000.
    assert 20 < len(set(ids[0]) & set(ids[2])) < 60
    assert len(split_calibration(corpus_of([str(i) for i in range(4000)]), key=KEY)[1]) == 500


# --- order of seeds ------------------------------------------------------------------------------


def test_seeding_order_holds_every_record_once_and_units_together() -> None:
    pool = corpus_of([f"u{i % 40}" for i in range(100)], [{"x": str(i % 3)} for i in range(100)])
    order = sample_seeds(pool, np.random.default_rng(1))
    assert sorted(order) == sorted(record.record_id for record in pool.records)
    unit_of = {record.record_id: record.unit_id for record in pool.records}
    units = [unit_of[record_id] for record_id in order]
    changes = sum(before != after for before, after in pairwise(units))
    assert changes == 39
    assert order == sample_seeds(pool, np.random.default_rng(1))
    assert order != sample_seeds(pool, np.random.default_rng(2))


@pytest.mark.parametrize(
    "weights", [[70, 20, 10], [9] * 35, [500, 1, 1, 1, 1], [400, *[1] * 300], [3, 170, 41, 8]]
)
@pytest.mark.parametrize("seed", range(3))
def test_every_prefix_follows_the_label_proportions(weights: list[int], seed: int) -> None:
    names = [f"{i}" for i, weight in enumerate(weights) for _ in range(weight)]
    pool = corpus_of([str(i) for i in range(len(names))], [{"a": name, "b": "z"} for name in names])
    label_of = {record.record_id: record.labels["a"] for record in pool.records}
    counts = Counter[str]()
    for n, record_id in enumerate(sample_seeds(pool, np.random.default_rng(seed)), start=1):
        counts[label_of[record_id]] += 1
        for name, weight in enumerate(weights):
            assert abs(counts[str(name)] - n * weight / len(names)) < 2
    assert sum(counts.values()) == len(names)


def test_every_record_is_equally_likely_to_come_early() -> None:
    names = ["a"] * 12 + ["b"] * 5 + ["c", "d", "e"]
    pool = corpus_of([str(i) for i in range(20)], [{"x": name} for name in names])
    n_trials, n_first = 4000, 8
    early = Counter[str]()
    for seed in range(n_trials):
        early.update(sample_seeds(pool, np.random.default_rng(seed))[:n_first])
    share = np.array([early[record.record_id] / n_trials for record in pool.records])
    assert np.abs(share - n_first / 20).max() < 0.04


def test_unlabelled_pool_is_shuffled() -> None:
    pool = corpus_of([str(i) for i in range(50)])
    order = sample_seeds(pool, np.random.default_rng(0))
    assert sorted(order) == sorted(record.record_id for record in pool.records)
    assert order != [record.record_id for record in pool.records]
    assert sample_seeds(corpus_of([]), np.random.default_rng(0)) == []


# --- fingerprint ---------------------------------------------------------------------------------


def test_fingerprint_changes_with_everything_that_matters() -> None:
    corpus = read_corpus(pd.DataFrame(ROWS), label_columns=["topic"], unit_column="user")
    first, *rest = corpus.records
    others = [
        replace(corpus, records=(replace(first, text=first.text + "."), *rest)),
        replace(corpus, records=(replace(first, record_id="b"), *rest)),
        replace(corpus, records=(replace(first, unit_id="b"), *rest)),
        replace(corpus, records=(replace(first, labels={"topic": "b"}), *rest)),
        replace(corpus, records=(*rest, first)),
        replace(corpus, records=tuple(rest)),
        replace(corpus, label_columns=()),
    ]
    prints = [fingerprint(item) for item in (corpus, *others)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(replace(corpus, skipped={"empty": 9})) == prints[0]


# --- writing -------------------------------------------------------------------------------------


def released(text: str, i: int, **labels: str) -> SyntheticText:
    return SyntheticText(text_id=f"t{i}", text=text, labels=labels, paid_by=1)


def read_back(path: Path) -> list[dict[str, str | None]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in file.read().split("\n") if line]
        return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]


NASTY = [
    'She said "no", twice;\nthen left.\r\nReally.',
    "=1+1, +2, -3, @sum",
    "tab\tand \\ and ' and \u2028 and \x85 and \r lone",
    "emoji 👩‍👩‍👧 and ünïcödé and 中文 and \U0001f600",
    '"""',
    ",",
    "NA",
]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_nasty_texts_round_trip(suffix: str, tmp_path: Path) -> None:
    rows = [released(text, i, **({"topic": text} if i else {})) for i, text in enumerate(NASTY)]
    path = tmp_path / f"out.{suffix}"
    write_rows(to_table(rows, ["topic"]), path)
    shown = guard_formula if suffix == "csv" else str
    expected = [
        {"id": row.text_id, "text": shown(row.text), "topic": shown(row.text) if row.labels else None}
        for row in rows
    ]
    assert read_back(path) == expected
    assert list(tmp_path.iterdir()) == [path]
    if suffix == "csv":
        frame = pd.read_csv(path, keep_default_na=False)
        assert frame["text"].tolist() == [guard_formula(text) for text in NASTY]


@pytest.mark.parametrize(
    "value",
    [
        '=HYPERLINK("http://x")',
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "\t=1",
        " =1",
        "|x",
        "%x",
        "\r=1",
        "＝1",
        "－1+1",
        "\ufeff=1",
        "\u200b =1",
        "\u202e@x",
        "\x01+1+1",
        "\x1b=1",
    ],
)
def test_a_spreadsheet_finds_no_formula_in_csv(value: str, tmp_path: Path) -> None:
    write_rows(to_table([released(value, 1, topic=value)], ["topic"]), tmp_path / "out.csv")
    row = read_back(tmp_path / "out.csv")[0]
    assert row["text"] == row["topic"] == f"'{value}"
    write_rows(to_table([released("a text", 1, **{value: "x"})], [value]), tmp_path / "names.csv")
    assert list(read_back(tmp_path / "names.csv")[0]) == ["id", "text", f"'{value}"]
    write_rows(to_table([released(value, 1)], []), tmp_path / "out.jsonl")
    assert read_back(tmp_path / "out.jsonl")[0]["text"] == value


@pytest.mark.parametrize("value", ["-1", "+1.5", "-2e-3", "5 - 3", "no = yes", "", None])
def test_what_is_no_formula_is_left_alone_in_csv(value: str | None) -> None:
    assert guard_formula(value) == value


characters = st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.text(st.one_of(characters, st.sampled_from("\n\r\",\t' ")), min_size=1), min_size=1, max_size=6
    )
)
def test_whatever_is_written_is_read_again(suffix: str, values: list[str], tmp_path: Path) -> None:
    path = tmp_path / f"out.{suffix}"
    write_rows(to_table([released(value, i) for i, value in enumerate(values)], []), path)
    expected_rows = [guard_formula(value) if suffix == "csv" else value for value in values]
    assert [row["text"] for row in read_back(path)] == expected_rows

    usable = [str(value).replace("\r\n", "\n").strip() for value in expected_rows]
    expected = {f"t{i}": value for i, value in enumerate(usable) if value}
    if expected:
        corpus = read_corpus(path, min_words=1)
        assert {record.record_id: record.text for record in corpus.records} == expected
    else:
        with pytest.raises(DataError, match="no usable text"):
            read_corpus(path, min_words=1)


def test_table_holds_nothing_but_what_is_released() -> None:
    table = to_table([released("one", 1, topic="a", other="zebra"), released("two", 2)], ["topic"])
    assert table.to_pylist() == [
        {"id": "t1", "text": "one", "topic": "a"},
        {"id": "t2", "text": "two", "topic": None},
    ]
    assert table.schema.metadata is None
    assert to_table([], ["topic"]).column_names == ["id", "text", "topic"]


def test_private_records_are_refused() -> None:
    private = PrivateRecord(record_id="r", unit_id="r", text=SECRET)
    with pytest.raises(PrivateDataError, match="PrivateRecord") as caught:
        to_table([released("one", 1), private], [])  # type: ignore[list-item]
    assert SECRET not in str(caught.value)


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    half = pa.table({"text": pa.array([b"\xff"], pa.binary()).cast(pa.string(), safe=False)})
    with pytest.raises(UnicodeDecodeError):
        write_rows(half, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

    table = to_table([released("one", 1)], [])
    with pytest.raises(RunDirError, match="No such file"):
        write_rows(table, tmp_path / "no" / "out.csv")
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        write_rows(table, tmp_path / "out.xlsx")
