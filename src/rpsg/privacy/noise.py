"""Where privacy noise comes from. A closed set: a bad source costs privacy."""

import hashlib
import math
import secrets
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
_SAMPLING_BITS = 53


class NoiseSource(Protocol):
    """Draws noise."""

    @property
    def secure(self) -> bool:
        """Whether the noise protects anything."""

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        """Adds discrete Gaussian noise of this standard deviation to integers."""

    def noisy_max(self, utilities: Sequence[float], scale: float) -> int:
        """Returns the index of a noisy maximum: permute-and-flip with this scale."""

    def poisson(self, n: int, rate: float) -> list[int]:
        """Returns which of `n` things are in a sample that each enters on its own with at most this rate."""

    def shuffle(self, n: int) -> list[int]:
        """Returns a random order of `n` things."""

    def token(self) -> str:
        """Returns a fresh identifier of 16 hexadecimal characters."""


class SecureNoise:
    """The operating system's secure random source, through OpenDP and `secrets`."""

    secure = True

    def __init__(self) -> None:
        import opendp.prelude as dp

        dp.enable_features("contrib")
        self._dp = dp

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        """Adds OpenDP's discrete Gaussian noise, exact on integers."""
        dp = self._dp
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="i64")
        measurement = dp.m.make_gaussian(*space, scale=std)
        return np.asarray(measurement([int(value) for value in values]), dtype=np.int64)

    def noisy_max(self, utilities: Sequence[float], scale: float) -> int:
        """Draws with OpenDP's noisy max under the pure measure, which is permute-and-flip."""
        dp = self._dp
        space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.linf_distance(T=float)
        measurement = dp.m.make_noisy_max(*space, dp.max_divergence(), scale=scale)
        return int(measurement([float(value) for value in utilities]))

    def poisson(self, n: int, rate: float) -> list[int]:
        """Samples with the operating system's source; the rate is rounded down to 2^-53."""
        below = math.floor(rate * 2**_SAMPLING_BITS)
        return [i for i in range(n) if secrets.randbits(_SAMPLING_BITS) < below]

    def shuffle(self, n: int) -> list[int]:
        """Shuffles with the operating system's source."""
        order = list(range(n))
        secrets.SystemRandom().shuffle(order)
        return order

    def token(self) -> str:
        """Returns a random token."""
        return secrets.token_hex(8)


class FixedNoise:
    """Repeatable noise for tests. A run that used it is stamped as not private."""

    secure = False

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        """Adds rounded Gaussian noise."""
        return values + np.rint(self._rng.normal(scale=std, size=len(values))).astype(np.int64)

    def noisy_max(self, utilities: Sequence[float], scale: float) -> int:
        """Permute-and-flip in floating point."""
        top = max(utilities)
        for index in self._rng.permutation(len(utilities)):
            if self._rng.random() <= math.exp((utilities[index] - top) / scale):
                return int(index)
        return int(np.argmax(utilities))

    def poisson(self, n: int, rate: float) -> list[int]:
        """Samples repeatably."""
        return [int(i) for i in np.flatnonzero(self._rng.random(n) < rate)]

    def shuffle(self, n: int) -> list[int]:
        """Shuffles repeatably."""
        return [int(i) for i in self._rng.permutation(n)]

    def token(self) -> str:
        """Returns a repeatable token."""
        return hashlib.sha256(self._rng.bytes(16)).hexdigest()[:16]
