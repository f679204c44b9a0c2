import tracemalloc

import numpy as np
import pytest
import torch

from rpsg.errors import ConfigError
from rpsg.llm import gpu_search
from rpsg.privacy.mechanisms import GRID_STEPS, GaussianSum
from rpsg.stages import vote
from rpsg.stages.vote import best_of_each, cast_votes, classes_of, nearest, survivors


def unit(rng: np.random.Generator, n: int, d: int = 8) -> np.ndarray:
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearest_is_exact() -> None:
    rng = np.random.default_rng(0)
    queries, items = unit(rng, 5000), unit(rng, 37)
    brute = np.linalg.norm(queries[:, None] - items[None], axis=2).argmin(axis=1)
    assert np.array_equal(nearest(queries, items), brute)


def test_small_classes_vote_as_one() -> None:
    labels = [{"t": "a"}] * 5 + [{"t": "b"}] * 4
    assert classes_of(labels) == ["t=a"] * 5 + [""] * 4


def test_records_vote_within_their_class() -> None:
    vectors = np.eye(4, dtype=np.float32)
    votes = cast_votes(
        vectors,
        [{"t": "a"}, {"t": "a"}, {"t": "b"}, {"t": "c"}],
        ["u0", "u1", "u2", "u3"],
        vectors=vectors,
        classes=["t=a", "t=b", "t=b", ""],
    )
    cast = dict(zip(votes.units.tolist(), votes.items.tolist(), strict=True))
    # Records 0 and 1 have one candidate of class a; record 2 its own; record 3's class has none, so it
    # votes with the small classes.
    assert cast == {0: 0, 1: 0, 2: 2, 3: 3}


def test_planted_outliers_do_not_survive() -> None:
    rng = np.random.default_rng(1)
    centre = unit(rng, 1)
    near = centre + 0.3 * unit(rng, 90)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    outliers = -centre + 0.3 * unit(rng, 10)
    candidates = np.concatenate([near, outliers]).astype(np.float32)
    private = centre + 0.3 * unit(rng, 400)
    private = (private / np.linalg.norm(private, axis=1, keepdims=True)).astype(np.float32)
    votes = cast_votes(
        private, [{}] * 400, [str(i) for i in range(400)], vectors=candidates, classes=[""] * 100
    )
    counts = np.bincount(votes.items, weights=votes.weights, minlength=100)
    kept = survivors(counts.tolist(), [""] * 100, share=0.9)
    assert len(kept) == 90 and max(kept) < 90


def test_one_record_moves_the_counts_by_at_most_one() -> None:
    rng = np.random.default_rng(2)
    mechanism = GaussianSum(noise_multiplier=1.0, n_items=12)
    for _ in range(200):
        # Classes of about five records: here one record more decides whether a class is small.
        labels = [{"t": str(rng.integers(4))} for _ in range(20)]
        vectors, candidates = unit(rng, 20), unit(rng, 12)
        classes = classes_of([{"t": str(rng.integers(3))} for _ in range(12)])
        sums = [
            mechanism.clipped_sum(
                cast_votes(
                    vectors[:n], labels[:n], [str(i) for i in range(n)], vectors=candidates, classes=classes
                )
            )
            for n in (20, 19)
        ]
        assert np.linalg.norm(sums[0] - sums[1]) <= GRID_STEPS


@pytest.mark.parametrize("n", [60, 61, 2048, 2049, 2109])
def test_a_vote_does_not_depend_on_how_many_others_vote(n: int) -> None:
    # Sums of products in floating point round differently with the shape of the matrix; near ties show it.
    rng = np.random.default_rng(n)
    vectors, candidates = unit(rng, n, 256), near_ties(rng, 10)
    together = nearest(vectors, candidates)
    alone = np.concatenate([nearest(vectors[i : i + 1], candidates) for i in range(n)])
    fewer = nearest(vectors[:-1], candidates)
    assert (together == alone).all() and (together[:-1] == fewer).all()


def near_ties(rng: np.random.Generator, n: int) -> np.ndarray:
    """Pairs of candidates that differ by a step of the grid in four places."""
    pairs = np.repeat(unit(rng, n, 256), 2, axis=0)
    for second in pairs[1::2]:
        second[rng.choice(256, size=4, replace=False)] += np.float32(2.0**-15)
    return pairs


def test_near_ties_and_equal_candidates_are_told_apart_without_rounding() -> None:
    rng = np.random.default_rng(3)
    vectors, candidates = unit(rng, 3000, 256), near_ties(rng, 50)
    candidates = np.concatenate([candidates, candidates[::-1]])
    whole = [np.rint(table.astype(np.float64) * 2**15).astype(np.int64) for table in (vectors, candidates)]
    # numpy takes the first of several largest.
    assert np.array_equal(nearest(vectors, candidates), np.argmax(whole[0] @ whole[1].T, axis=1))


def test_votes_are_computed_on_a_gpu_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch on the processor in the place of a GPU; tests/llm/test_gpu.py has a real one."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    monkeypatch.setattr(gpu_search, "_PRODUCTS", 64 * 1000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    rng = np.random.default_rng(3)
    vectors, candidates = unit(rng, 1500, 256), near_ties(rng, 50)
    candidates = np.concatenate([candidates, candidates[::-1]])
    expected = nearest(vectors, candidates)
    assert not gpu_search.pays(len(vectors), len(candidates), "auto")
    monkeypatch.setattr(gpu_search, "_WORTHWHILE", 1)
    assert [gpu_search.pays(5, 5, item) for item in ("cpu", "cuda", "auto")] == [False, True, True]
    with monkeypatch.context() as patch:
        patch.setattr(vote._Search, "among", lambda *_, **__: pytest.fail("not on the GPU"))
        assert np.array_equal(nearest(vectors, candidates, device="auto"), expected)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert np.array_equal(nearest(vectors, candidates, device="auto"), expected)
    with pytest.raises(ConfigError, match="cuda, but"):
        nearest(vectors, candidates, device="cuda")


def test_memory_of_a_vote_does_not_grow_with_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    monkeypatch.setattr(vote, "BLOCK", 64)
    candidates, peaks = unit(rng, 400, 16), []
    for n in (2_000, 20_000):
        vectors = unit(rng, n, 16)
        tracemalloc.start()
        nearest(vectors, candidates)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Each record more costs its place in the list of records and its vote.
    assert peaks[1] - peaks[0] < 24 * 18_000


def test_survivors_rank_within_classes() -> None:
    assert survivors([9, 8, 7, 1, 0, 0], ["a", "a", "a", "b", "b", "b"], share=0.67) == [0, 1, 3, 4]
    assert survivors([0.0], ["a"], share=0.1) == [0]


def test_one_text_a_seed() -> None:
    assert best_of_each([1, 5, 2, 2], ["s", "s", "t", "t"], [0, 1, 2, 3]) == [1, 2]
    assert best_of_each([1, 5, 2, 2], ["s", "s", "t", "t"], [0, 3]) == [0, 3]
