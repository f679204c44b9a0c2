"""Distances between two sets of vectors, a block of rows at a time."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rpsg.types import FloatArray

Matrix = npt.NDArray[np.float64]
BLOCK = 1024


def squared_distances(one: FloatArray | Matrix, other: FloatArray | Matrix) -> Matrix:
    """Returns squared Euclidean distances in double precision, shape (len(one), len(other)).

    Equal rows get a distance of about 1e-15, not 0.
    """
    return _table(one.astype(np.float64, copy=False), other.astype(np.float64, copy=False))


def _table(left: Matrix, right: Matrix) -> Matrix:
    table: Matrix = left @ right.T
    table *= -2
    table += np.einsum("ij,ij->i", left, left)[:, None]
    table += np.einsum("ij,ij->i", right, right)[None, :]
    return np.maximum(table, 0, out=table)


def distance_blocks(
    one: FloatArray | Matrix, other: FloatArray | Matrix, *, size: int = BLOCK
) -> Iterator[tuple[slice, Matrix]]:
    """Yields rows of `one` and their squared distances to all of `other`; the table is never whole."""
    left, right = one.astype(np.float64, copy=False), other.astype(np.float64, copy=False)
    for start in range(0, len(left), size):
        rows = slice(start, min(start + size, len(left)))
        yield rows, _table(left[rows], right)
