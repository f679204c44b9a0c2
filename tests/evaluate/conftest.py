from collections.abc import Callable

import numpy as np
import pytest

from rpsg.types import FloatArray

Cloud = Callable[..., FloatArray]


@pytest.fixture
def cloud() -> Cloud:
    """Makes unit vectors around the direction (1, 1, ...), off by `shift` in the first coordinate."""

    def make(n: int, *, seed: int, d: int = 16, shift: float = 0.0) -> FloatArray:
        vectors = np.random.default_rng(seed).normal(size=(n, d)) + 1.0
        vectors[:, 0] += shift
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    return make
