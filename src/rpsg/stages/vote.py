"""Vote: every private record votes for its nearest candidate (paper, section 2, step 5)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rpsg.privacy.mechanisms import PrivateRows
from rpsg.types import FloatArray, Labels

SMALL_CLASS = 5
BLOCK = 2048
_GRID = 2.0**15
SHARED_CLASS = ""
# Candidates that a unit's votes must reach to count in full.
DIVERSITY_FLOOR = 4.0


def class_name(labels: Labels) -> str:
    """Names a class by its labels."""
    return "\x1f".join(f"{key}={value}" for key, value in sorted(labels.items()))


def classes_of(labels: Sequence[Labels]) -> list[str]:
    """Names the class of each text: its labels joined; classes of fewer than 5 texts vote as one."""
    names = [class_name(item) for item in labels]
    sizes = Counter(names)
    return [name if sizes[name] >= SMALL_CLASS else SHARED_CLASS for name in names]


def to_public_grid(vectors: FloatArray) -> npt.NDArray[np.float64]:
    """Rounds unit vectors to whole numbers of 2^-15, kept as float64.

    Sums of products of such numbers are below 2^53, so every order of summation gives the same: a row's
    result does not depend on how many other rows are multiplied with it, as it does in floating point.
    """
    return np.rint(np.asarray(vectors, dtype=np.float64) * _GRID)


def nearest(queries: FloatArray, items: FloatArray) -> npt.NDArray[np.int64]:
    """Returns the index of each query's nearest item by Euclidean distance, in blocks.

    For unit vectors that is the largest inner product, computed on a grid, so that it is a function of the
    query and the items alone: rounding that depends on the other queries would let one record move many
    votes. Ties go to the lowest index.
    """
    columns = to_public_grid(items).T
    found = [
        np.argmax(to_public_grid(queries[start : start + BLOCK]) @ columns, axis=1)
        for start in range(0, len(queries), BLOCK)
    ]
    return np.concatenate(found).astype(np.int64) if found else np.empty(0, dtype=np.int64)


def cast_votes(
    private_vectors: FloatArray,
    private_labels: Sequence[Labels],
    private_units: Sequence[str],
    *,
    vectors: FloatArray,
    classes: Sequence[str],
) -> PrivateRows:
    """Lets each private record vote for its nearest candidate of its own class.

    A record's vote follows from that record and the candidates alone. Counting classes among the private
    records would let one record move the votes of others, and the sensitivity would not be 1.

    Args:
        private_vectors: unit vectors of the private records, shape (n, d).
        private_labels: labels of each record.
        private_units: unit of each record; a unit's votes are clipped together by the mechanism.
        vectors: unit vectors of the candidates, shape (m, d).
        classes: class of each candidate. A record whose class has no candidate votes in the class
            that the small ones share, or not at all.
    """
    theirs = np.asarray(classes, dtype=object)
    present = set(classes)
    voters: list[npt.NDArray[np.int64]] = []
    choices: list[npt.NDArray[np.int64]] = []
    names = [class_name(labels) for labels in private_labels]
    own = np.asarray([name if name in present else SHARED_CLASS for name in names], dtype=object)
    for name in sorted(present):
        items = np.flatnonzero(theirs == name)
        records = np.flatnonzero(own == name)
        choices.append(items[nearest(private_vectors[records], vectors[items])])
        voters.append(records)
    unit_index = {unit: i for i, unit in enumerate(dict.fromkeys(private_units))}
    units = np.asarray([unit_index[unit] for unit in private_units], dtype=np.int64)
    records = np.concatenate(voters) if voters else np.empty(0, dtype=np.int64)
    return PrivateRows(
        units=units[records],
        items=np.concatenate(choices) if choices else np.empty(0, dtype=np.int64),
        weights=np.ones(len(records)),
    )


def floor_diversity(votes: PrivateRows, *, floor: float = DIVERSITY_FLOOR) -> PrivateRows:
    """Scales each unit's votes to a sum of at most sqrt(floor), before the mechanism clips their L2 norm.

    A unit whose votes spread over at least `floor` candidates then counts as much as any other such unit,
    however many records it has; a unit with one record keeps its one vote. The L2 norm of
    v min(sqrt(floor) / |v|_1, 1 / |v|_2) is at most 1 (specification, section 2.2).
    """
    _, unit = np.unique(votes.units, return_inverse=True)
    totals = np.bincount(unit, weights=votes.weights)
    scale = np.minimum(1.0, np.sqrt(floor) / np.maximum(totals, 1e-300))
    return PrivateRows(units=votes.units, items=votes.items, weights=votes.weights * scale[unit])


def survivors(counts: Sequence[float], classes: Sequence[str], *, share: float) -> list[int]:
    """Returns the indices of the candidates that rank in the top `share` of their class.

    At least one candidate of a class survives. Ties go to the lower index.
    """
    values, names = np.asarray(counts, dtype=np.float64), np.asarray(classes, dtype=object)
    kept: list[int] = []
    for name in sorted(set(classes)):
        members = np.flatnonzero(names == name)
        n_kept = max(1, int(np.floor(share * len(members) + 1e-9)))
        order = np.argsort(-values[members], kind="stable")
        kept += members[order[:n_kept]].tolist()
    return sorted(kept)


def best_of_each(counts: Sequence[float], seeds: Sequence[str], kept: Sequence[int]) -> list[int]:
    """Returns, for every seed that has a survivor, the index of its candidate with most votes."""
    best: dict[str, int] = {}
    for index in kept:
        seed = seeds[index]
        if seed not in best or counts[index] > counts[best[seed]]:
            best[seed] = index
    return list(best.values())
