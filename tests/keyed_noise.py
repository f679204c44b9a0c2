"""Test noise that a restart draws again: on whatever computes it, after whatever crash."""

import hashlib
from collections.abc import Sequence

import numpy as np

from rpsg.privacy.noise import FixedNoise, IntArray


class KeyedNoise(FixedNoise):
    """Draws that depend on what they are added to alone: a restart draws the same."""

    def __init__(self) -> None:
        super().__init__(0)

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        self._seed(values.tobytes(), std)
        return super().gaussian(values, std)

    def noisy_max(self, utilities: Sequence[float], scale: float) -> int:
        self._seed(list(utilities), scale)
        return super().noisy_max(utilities, scale)

    def shuffle(self, n: int) -> list[int]:
        self._seed(n)
        return super().shuffle(n)

    def _seed(self, *given: object) -> None:
        digest = hashlib.sha256(repr(given).encode()).digest()
        self._rng = np.random.default_rng(int.from_bytes(digest[:8]))
