"""Texts that occur more than once, word for word or nearly so."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from rpsg.text import normalised_words

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
# Runs are hashed to 32 bits, so that none has a number as large.
_NO_HASH = 1 << 32
# Texts that share so much of their three-word runs are nearly the same.
NEAR = 0.5
_RUN = 3
_N_BANDS, _N_ROWS = 32, 4
_N_HASHES = _N_BANDS * _N_ROWS
_MAX_BUCKET = 200
# Runs that a larger share of texts has are set phrases; a text with fewer others says too little.
_SET_PHRASE, _LEAST_TEXTS, _LEAST_RUNS = 0.02, 5, 5


def near_duplicate_pairs(
    texts: Sequence[str], *, threshold: float = NEAR, n_known: int | None = None
) -> IntArray:
    """Finds pairs of texts whose sets of three-word runs have a Jaccard similarity of `threshold` or more.

    MinHash signatures (Broder 1997) in 32 bands of 4 pick candidates; each is then checked exactly, so
    there are no false pairs. A pair at similarity 0.5 is found with probability 0.87, at 0.7 with 0.9998.

    Args:
        texts: any texts; case and punctuation do not count.
        threshold: in (0, 1].
        n_known: runs that more than 2 % (at least 5) of the first so many texts have do not count: a
            signature that all share makes no two texts alike. Without it all runs count.

    Returns:
        Pairs of row numbers, smaller first, shape (n_pairs, 2). Of more than 200 texts with one band in
        common each is compared with the first 200, which finds all texts with a near duplicate.
    """
    shingles = [_runs_of(text) for text in texts]
    if n_known is not None:
        shingles = _without_phrases(shingles, n_known)
    signatures = np.array([_signature(runs) for runs in shingles], dtype=np.uint64).reshape(-1, _N_HASHES)
    checked: dict[tuple[int, int], bool] = {}
    for band in range(_N_BANDS):
        part = np.ascontiguousarray(signatures[:, band * _N_ROWS : (band + 1) * _N_ROWS])
        for pair in _candidates(part):
            if pair not in checked:
                checked[pair] = _jaccard(shingles[pair[0]], shingles[pair[1]]) >= threshold
    found = sorted(pair for pair, is_near in checked.items() if is_near)
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _without_phrases(shingles: list[HashArray], n_known: int) -> list[HashArray]:
    runs, counts = np.unique(np.concatenate(shingles[:n_known]), return_counts=True)
    phrases = runs[counts > max(_LEAST_TEXTS, _SET_PHRASE * n_known)]
    left = [found[~np.isin(found, phrases, assume_unique=True)] for found in shingles]
    # What is near no other: a run of its own, which no text has.
    return [
        found if len(found) >= _LEAST_RUNS else np.array([_NO_HASH + place], dtype=np.uint64)
        for place, found in enumerate(left)
    ]


def _candidates(part: HashArray) -> Iterable[tuple[int, int]]:
    buckets: defaultdict[bytes, list[int]] = defaultdict(list)
    for i, row in enumerate(part):
        buckets[row.tobytes()].append(i)
    for members in buckets.values():
        for place, i in enumerate(members[:_MAX_BUCKET]):
            for j in members[place + 1 :]:
                yield i, j


def _runs_of(text: str) -> HashArray:
    words = normalised_words(text) or [text]
    runs = {" ".join(words[i : i + _RUN]) for i in range(max(1, len(words) - _RUN + 1))}
    hashes = (int.from_bytes(blake2b(run.encode(), digest_size=4).digest()) for run in runs)
    return np.unique(np.fromiter(hashes, dtype=np.uint64))


def _signature(runs: HashArray) -> HashArray:
    # Multiply-shift: products wrap at 2^64 on purpose, and only their upper half is well mixed.
    mixed: HashArray = (runs[:, None] * _FACTORS + _OFFSETS) >> np.uint64(32)
    smallest: HashArray = mixed.min(axis=0)
    return smallest


def _jaccard(one: HashArray, other: HashArray) -> float:
    n_common = len(np.intersect1d(one, other, assume_unique=True))
    return n_common / (len(one) + len(other) - n_common)


def _draw_hash_functions() -> tuple[HashArray, HashArray]:
    rng = np.random.default_rng(20260101)
    factors = rng.integers(0, 2**64, size=_N_HASHES, dtype=np.uint64) | np.uint64(1)
    return factors, rng.integers(0, 2**64, size=_N_HASHES, dtype=np.uint64)


_FACTORS, _OFFSETS = _draw_hash_functions()
