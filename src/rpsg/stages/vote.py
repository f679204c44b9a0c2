"""Vote: every private record votes for its nearest candidate (paper, section 2, step 5)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rpsg.llm.gpu_search import GpuSearch, pays
from rpsg.privacy.mechanisms import PrivateRows
from rpsg.types import Device, FloatArray, Labels
from rpsg.vectors import VectorRows

SMALL_CLASS = 5
BLOCK = 2048
_GRID = 2.0**15
_UNIT_ROUNDOFF = 2.0**-24
# Covers the rounding of the limit itself, which is in double precision.
_SLACK = 1.001
SHARED_CLASS = ""
Grid = npt.NDArray[np.float64]
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


def to_public_grid(vectors: FloatArray) -> Grid:
    """Rounds unit vectors to whole numbers of 2^-15, kept as float64.

    Sums of products of such numbers are below 2^53, so every order of summation gives the same: a row's
    result does not depend on how many other rows are multiplied with it, as it does in floating point.
    """
    return np.rint(np.asarray(vectors, dtype=np.float64) * _GRID)


def nearest(
    queries: VectorRows,
    items: FloatArray,
    *,
    rows: npt.NDArray[np.int64] | None = None,
    device: Device = "cpu",
) -> npt.NDArray[np.int64]:
    """Returns the index of each query's nearest item by Euclidean distance.

    For unit vectors that is the largest inner product, computed on a grid, so that it is a function of the
    query and the items alone: rounding that depends on the other queries would let one record move many
    votes. Ties go to the lowest index.

    Memory is that of `BLOCK` queries times the items, whatever the number of queries. A GPU finds the same.

    Args:
        queries: shape (n, d).
        items: shape (m, d), m at least 1.
        rows: the queries that are asked for; all by default.
        device: that computes where there is much to do; auto is a GPU where there is one.

    Raises:
        ConfigError: device is cuda, and there is none.
    """
    wanted = np.arange(len(queries)) if rows is None else rows
    found = np.empty(len(wanted), dtype=np.int64)
    if not len(wanted):
        return found
    grid = to_public_grid(items)
    # Of equal items only the first can win.
    places: dict[bytes, int] = {}
    for i, row in enumerate(grid.astype(np.int32)):
        places.setdefault(row.tobytes(), i)
    first = np.asarray(list(places.values()))
    search: GpuSearch | _Search
    if pays(len(wanted), len(first), device):
        search = GpuSearch(grid[first], grid=_GRID)
    else:
        search = _Search.among(grid[first], block=min(BLOCK, len(wanted)))
    for start in range(0, len(wanted), search.block):
        part = slice(start, start + search.block)
        found[part] = first[search.nearest(queries[wanted[part]])]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Finds nearest items on the grid: in single precision, and without rounding where that does not do.

    Attributes:
        items: on the grid, all different, shape (m, d).
        columns: the same in single precision, shape (d, m).
        reach: by how much two products with a query of length 1 may be off together.
        block: most queries at a time.
        scores: room for the products of a block.
    """

    items: Grid
    columns: FloatArray
    reach: float
    block: int
    scores: FloatArray

    @classmethod
    def among(cls, items: Grid, *, block: int) -> "_Search":
        # Whole numbers below 2^24 are exact in single precision, and a sum of d of their products is off by
        # at most d u / (1 - d u) |q| |c| in any order, u = 2^-24 (Higham, Accuracy and Stability of
        # Numerical Algorithms, 2nd edition, equation 3.5).
        n, dimension = items.shape
        error = dimension * _UNIT_ROUNDOFF / (1 - dimension * _UNIT_ROUNDOFF)
        longest = float(np.linalg.norm(items, axis=1).max())
        return cls(
            items=items,
            columns=np.ascontiguousarray(items.T, dtype=np.float32),
            reach=2 * error * longest * _SLACK,
            block=block,
            scores=np.empty((block, n), dtype=np.float32),
        )

    def nearest(self, vectors: FloatArray) -> npt.NDArray[np.int64]:
        queries = to_public_grid(vectors)
        each = np.arange(len(queries))
        scores = np.matmul(queries.astype(np.float32), self.columns, out=self.scores[: len(queries)])
        best: npt.NDArray[np.int64] = scores.argmax(axis=1)
        limit = scores[each, best] - self.reach * np.linalg.norm(queries, axis=1)
        scores[each, best] = -np.inf
        for row in np.flatnonzero(scores.max(axis=1) >= limit):
            close = np.append(np.flatnonzero(scores[row] >= limit[row]), best[row])
            close.sort()
            best[row] = close[np.argmax(self.items[close] @ queries[row])]
        return best


def cast_votes(
    private_vectors: VectorRows,
    private_labels: Sequence[Labels],
    private_units: Sequence[str],
    *,
    vectors: FloatArray,
    classes: Sequence[str],
    device: Device = "cpu",
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
        device: that computes; the votes are the same on each.
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
        choices.append(items[nearest(private_vectors, vectors[items], rows=records, device=device)])
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
