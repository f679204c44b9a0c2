"""Large files keep their texts: the corpus is the same, and is read as it is needed."""

import json
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rpsg import data, row_files
from rpsg.data import fingerprint, read_corpus, split_calibration
from rpsg.errors import DataError
from rpsg.row_files import read_again
from rpsg.stored import StoredRecords
from rpsg.types import PrivateCorpus

ROWS: list[dict[str, object]] = [
    {
        "id": f"p{i}",
        "person": f"u{i // 3}",
        "text": f'  Letter {i} says, "it rained" in town,\nand\u2028 then the Zürich train was late again.',
        "topic": ("rent", "work", None)[i % 3],
    }
    for i in range(60)
]
ROWS[7]["text"] = "too short"


def as_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    content = pd.DataFrame(rows).to_csv(index=False, lineterminator="\r\n").replace("\r\n", "\r\n\r\n", 3)
    path.with_suffix(".csv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    return path.with_suffix(".csv")


def as_tsv(path: Path, rows: list[dict[str, object]]) -> Path:
    pd.DataFrame(rows).to_csv(path.with_suffix(".tsv"), index=False, sep="\t")
    return path.with_suffix(".tsv")


def as_json_lines(path: Path, rows: list[dict[str, object]]) -> Path:
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(rows)]
    path.with_suffix(".jsonl").write_bytes(b"\xef\xbb\xbf" + "\n\n".join(lines).encode())
    return path.with_suffix(".jsonl")


def as_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"), row_group_size=13)
    return path.with_suffix(".parquet")


FORMATS = [as_csv, as_tsv, as_json_lines, as_parquet]
ROLES = [
    {"label_columns": ("topic",)},
    {"unit_column": "person"},
    {"unit_column": "person", "label_columns": ("topic",), "id_column": "id"},
]


def both(
    monkeypatch: pytest.MonkeyPatch, source: object, **roles: object
) -> tuple[PrivateCorpus, PrivateCorpus]:
    monkeypatch.setattr(row_files, "CHUNK_ROWS", 7)
    eager = read_corpus(source, **roles)
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    return eager, read_corpus(source, **roles)


@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("write", FORMATS)
def test_the_corpus_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path], roles: dict[str, object]
) -> None:
    eager, stored = both(monkeypatch, write(tmp_path / "posts", ROWS), **roles)
    assert isinstance(stored.records, StoredRecords) and isinstance(eager.records, tuple)
    assert tuple(stored.records) == eager.records
    assert replace(stored, records=()) == replace(eager, records=())
    assert fingerprint(stored) == fingerprint(eager)
    assert [stored.records[i] for i in (58, 0, -1)] == [eager.records[i] for i in (58, 0, -1)]
    assert tuple(stored.records[5:50:4]) == eager.records[5:50:4]
    for mine, theirs in zip(
        split_calibration(stored, key=b"k"), split_calibration(eager, key=b"k"), strict=True
    ):
        assert tuple(mine.records) == theirs.records
    assert repr(stored) == repr(eager) and repr(stored.records) == "StoredRecords(<59 records>)"
    with pytest.raises(IndexError):
        stored.records[59]


@pytest.mark.parametrize("write", FORMATS)
def test_several_files_are_one_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    whole = write(tmp_path / "whole", ROWS)
    parts = [write(tmp_path / f"part-{i}", ROWS[i * 20 : i * 20 + 20]) for i in range(3)]
    pattern = str(tmp_path / f"part-*{parts[0].suffix}")
    eager, stored = both(monkeypatch, pattern, label_columns=("topic",))
    monkeypatch.undo()
    assert tuple(stored.records) == eager.records == read_corpus(whole, label_columns=("topic",)).records


def test_files_must_agree(tmp_path: Path) -> None:
    as_csv(tmp_path / "a", ROWS[:20])
    as_csv(tmp_path / "b", [{key: row[key] for key in ("person", "text")} for row in ROWS[20:]])
    with pytest.raises(DataError, match=r"b\.csv has other columns"):
        read_corpus(tmp_path / "*.csv")
    with pytest.raises(DataError, match="no file matches"):
        read_corpus(tmp_path / "*.tsv")


def test_repeated_ids_are_named_by_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**row, "id": "p3" if i in (9, 30) else row["id"]} for i, row in enumerate(ROWS)]
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    with pytest.raises(
        DataError, match="2 rows repeat the id of an earlier row, first row 10 that of row 4;"
    ):
        read_corpus(as_parquet(tmp_path / "posts", rows))


def test_a_file_that_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_csv(tmp_path / "posts", ROWS)
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    corpus = read_corpus(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="was changed while it was used"):
        fingerprint(corpus)
    path.unlink()
    with pytest.raises(DataError, match="was changed while it was used"):
        corpus.records[0]


def test_memory_is_that_of_places_not_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(row_files, "CHUNK_ROWS", 100)
    path, n, size = tmp_path / "posts.csv", 8000, 4000
    with path.open("w") as file:
        file.write("text,topic\n")
        file.writelines(f"{i} {'rain ' * (size // 5)},{i % 3}\n" for i in range(n))
    tracemalloc.start()
    corpus = read_corpus(path, label_columns=("topic",))
    fingerprint(corpus)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(corpus) == n
    # All texts would be 32 MB.
    assert peak < n * size / 5


def test_a_row_group_is_not_in_memory_as_a_whole(tmp_path: Path) -> None:
    path, n = tmp_path / "one-group.parquet", 20_000
    texts = [f"{i} " + "the same words again and again " * 60 for i in range(n)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=n, use_dictionary=False)
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        places = np.asarray([[0, 3], [0, n - 1], [0, 5000], [0, 2]], dtype=np.int64)
        assert read_again(path, "text", places) == [texts[i] for i in (3, n - 1, 5000, 2)]
    finally:
        pa.set_memory_pool(before)
    assert (pool.max_memory() or 0) < sum(map(len, texts)) / 3
