"""Vectors of private texts on disk."""

import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rpsg import vectors
from rpsg.llm.fake import HashEmbedder
from rpsg.types import FloatArray
from rpsg.vectors import VectorStore

TEXTS = [f"The quicksilver letter number {i} came late." for i in range(10)]


class Counting(HashEmbedder):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> FloatArray:
        self.seen += texts
        return super().embed(texts)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "private" / "embeddings"


def test_rows_are_those_of_the_embedder_in_any_order(folder: Path) -> None:
    store = VectorStore(folder, model="hash")
    found = store.embed(TEXTS, HashEmbedder().embed)
    expected = HashEmbedder().embed(TEXTS)
    assert np.array_equal(found.read(), expected)
    rows = np.asarray([9, 0, 4, 4, 1])
    assert np.array_equal(found[rows], expected[rows])
    assert found[rows].dtype == np.float32


def test_a_text_is_embedded_once_also_when_a_run_is_resumed(folder: Path) -> None:
    embedder = Counting()
    VectorStore(folder, model="hash").embed(TEXTS[:5], embedder.embed)
    again = VectorStore(folder, model="hash").embed([*TEXTS, TEXTS[0]], embedder.embed)
    assert sorted(embedder.seen) == sorted(TEXTS)
    assert np.array_equal(again.read(), HashEmbedder().embed([*TEXTS, TEXTS[0]]))


def test_a_killed_run_goes_on_at_the_same_block(folder: Path) -> None:
    calls: list[Sequence[str]] = []

    def killed(texts: Sequence[str]) -> FloatArray:
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return HashEmbedder().embed(texts)

    with pytest.raises(KeyboardInterrupt):
        VectorStore(folder, model="hash").embed(TEXTS, killed)
    embedder = Counting()
    found = VectorStore(folder, model="hash").embed(TEXTS, embedder.embed)
    assert embedder.seen == TEXTS[6:]
    assert np.array_equal(found.read(), HashEmbedder().embed(TEXTS))


def test_a_block_without_its_keys_does_not_count(folder: Path) -> None:
    VectorStore(folder, model="hash").embed(TEXTS, HashEmbedder().embed)
    (folder / "000003.keys.npy").unlink()
    assert len(VectorStore(folder, model="hash")) == 9


def test_vectors_of_another_model_are_removed(folder: Path) -> None:
    VectorStore(folder, model="hash").embed(TEXTS, HashEmbedder().embed)
    assert len(VectorStore(folder, model="other")) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["model.txt"]


def test_nobody_else_reads_them_and_no_text_is_kept(folder: Path) -> None:
    store = VectorStore(folder, model="hash")
    found = store.embed(TEXTS, HashEmbedder().embed)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"quicksilver" not in path.read_bytes()
    assert repr(store) == "VectorStore(<10 vectors>)" and repr(found) == "StoredVectors(<10 vectors>)"


def test_progress_is_told_block_by_block(folder: Path) -> None:
    told: list[int] = []
    VectorStore(folder, model="hash").embed(iter(TEXTS[:7]), HashEmbedder().embed, on_block=told.append)
    assert told == [3, 6, 7]


def test_nothing_in_nothing_out(folder: Path) -> None:
    found = VectorStore(folder, model="hash").embed([], HashEmbedder().embed)
    assert len(found) == 0 and len(found.read()) == 0
