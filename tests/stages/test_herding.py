import numpy as np
import pytest

from rpsg.stages import herding
from rpsg.stages.herding import rank_by_herding
from rpsg.stages.vote import nearest


def unit(rng: np.random.Generator, n: int, d: int = 64) -> np.ndarray:
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def around(rng: np.random.Generator, centre: np.ndarray, n: int) -> np.ndarray:
    vectors = centre + 0.8 * unit(rng, n, len(centre))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def votes_of(private: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    return np.bincount(nearest(private, candidates), minlength=len(candidates)).astype(float)


def discrepancy(chosen: np.ndarray, private: np.ndarray) -> float:
    width = 0.4
    pairs = [(chosen, chosen, 1), (private, private, 1), (chosen, private, -2)]
    return float(sum(sign * np.exp((a @ b.T - 1) / width).mean() for a, b, sign in pairs))


def test_the_right_texts_are_found_where_noise_drowns_each_vote() -> None:
    # 4 of 12 topics are those of the private texts; 0.7 votes a candidate and noise of 1.7.
    rng = np.random.default_rng(3)
    topics = unit(rng, 12)
    candidates = np.concatenate([around(rng, topic, 50) for topic in topics])
    private = np.concatenate([around(rng, topic, 105) for topic in topics[:4]])
    votes = votes_of(private, candidates)
    by_count, by_herding = [], []
    for _ in range(10):
        noisy = votes + rng.normal(0, 1.7, 600)
        by_count.append(np.mean(np.argsort(-noisy)[:150] < 200))
        by_herding.append(np.mean(np.asarray(rank_by_herding(noisy, candidates, noise=1.7)[:150]) < 200))
    assert np.mean(by_count) < 0.65 and np.mean(by_herding) > 0.9


@pytest.mark.parametrize("noise", [0.0, 1.7])
def test_a_common_topic_does_not_drive_out_a_rarer_one(noise: float) -> None:
    # Of 100 people 60 write of one topic; of the candidates half.
    rng = np.random.default_rng(4)
    one, other = unit(rng, 2)
    candidates = np.concatenate([around(rng, one, 300), around(rng, other, 300)])
    private = np.concatenate([around(rng, one, 240), around(rng, other, 160)])
    votes = votes_of(private, candidates)
    shares = []
    for _ in range(10):
        order = np.asarray(rank_by_herding(votes + noise * rng.normal(size=600), candidates, noise=noise))
        shares.append([np.mean(order[:n] < 300) for n in (100, 200)])
    assert np.abs(np.mean(shares, axis=0) - 0.6).max() < 0.05


def test_the_first_are_nearer_in_distribution_than_those_with_most_votes() -> None:
    rng = np.random.default_rng(5)
    topics = unit(rng, 6)
    candidates = np.concatenate([around(rng, topic, 60) for topic in topics])
    private = np.concatenate(
        [around(rng, topic, n) for topic, n in zip(topics, (90, 60, 30, 15, 5, 0), strict=True)]
    )
    votes = votes_of(private, candidates)
    for noise in (0.0, 1.7):
        noisy = votes + noise * rng.normal(size=360)
        herded = rank_by_herding(noisy, candidates, noise=noise)
        found = [discrepancy(candidates[order[:120]], private) for order in (herded, np.argsort(-noisy))]
        assert found[0] < 0.7 * found[1]


def test_counts_of_noise_alone_leave_the_candidates_as_they_are() -> None:
    rng = np.random.default_rng(6)
    one, other = unit(rng, 2)
    candidates = np.concatenate([around(rng, one, 150), around(rng, other, 150)])
    shares = []
    for _ in range(20):
        counts = rng.normal(0, 40, 300)
        shares.append(np.mean(np.asarray(rank_by_herding(counts, candidates, noise=40)[:100]) < 150))
    assert 0.4 < np.mean(shares) < 0.6 and np.ptp(shares) < 0.6


def test_without_votes_the_first_represent_the_candidates() -> None:
    rng = np.random.default_rng(9)
    one, other = unit(rng, 2)
    candidates = np.concatenate([around(rng, one, 450), around(rng, other, 150)])
    order = np.asarray(rank_by_herding([0.0] * 600, candidates, noise=6))
    assert abs(np.mean(order[:100] < 450) - 0.75) < 0.05


def test_the_order_is_that_of_brute_force_for_every_embedder_order_and_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(7)
    vectors, counts = unit(rng, 60, 8).astype(np.float64), rng.normal(1, 2, size=60)
    order = rank_by_herding(counts, vectors, noise=0.1)
    cosines = vectors @ vectors.T
    kernel = np.exp((cosines - 1) / (herding.WIDTH * (1 - cosines.mean())))
    weights = counts / counts.sum()
    expected: list[int] = []
    for place in range(60):
        gains = kernel @ weights - kernel[:, expected].sum(axis=1) / (place + 1)
        expected.append(max(set(range(60)) - set(expected), key=lambda i, gains=gains: gains[i]))
    assert order == expected
    # Another embedder may put all texts near to one another.
    narrow = np.hstack([np.sqrt(0.1) * vectors, np.full((60, 1), np.sqrt(0.9))])
    assert rank_by_herding(counts, narrow, noise=0.1) == order
    mixed = rng.permutation(60)
    assert [mixed[i] for i in rank_by_herding(counts[mixed], vectors[mixed], noise=0.1)] == order
    monkeypatch.setattr(herding, "BLOCK", 7)
    assert rank_by_herding(counts, vectors, noise=0.1) == order


def test_nothing_equal_texts_and_no_votes() -> None:
    assert rank_by_herding([], np.empty((0, 8), dtype=np.float32), noise=1) == []
    rng = np.random.default_rng(8)
    same = np.repeat(unit(rng, 1), 5, axis=0)
    assert rank_by_herding([1.0, -2.0, 3.0, 0.0, 3.0], same, noise=1) == list(range(5))
    # Sums of a whole block are added up in another order than those of its last rows.
    many = np.repeat(unit(rng, 1, 384), 1001, axis=0)
    assert rank_by_herding([1.0] * 1001, many, noise=1) == list(range(1001))
    others = unit(rng, 20)
    for counts in ([0.0] * 20, [-3.0] * 20):
        assert sorted(rank_by_herding(counts, others, noise=0)) == list(range(20))
