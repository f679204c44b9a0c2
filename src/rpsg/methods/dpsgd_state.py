"""What a DP-SGD training goes on from: weights and optimiser, one file a committed step."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from rpsg.errors import PrivacyError
from rpsg.rundir import RunDir, write_bytes
from rpsg.types import FloatArray


@dataclass(slots=True, kw_only=True)
class Adam:
    """The optimiser's state: post-processing of noisy sums (Kingma & Ba 2015).

    How many units were sampled is private, so sums are not divided by it; Adam does not depend on scale.
    """

    weights: FloatArray
    mean: FloatArray
    square: FloatArray

    @classmethod
    def new(cls, size: int) -> Self:
        """Returns the state before the first step."""
        none = np.zeros(size, dtype=np.float32)
        return cls(weights=none, mean=none.copy(), square=none.copy())

    def step(self, noisy: FloatArray, number: int, learning_rate: float) -> None:
        """Takes step `number`, counted from 1."""
        self.mean = 0.9 * self.mean + 0.1 * noisy
        self.square = 0.99 * self.square + 0.01 * noisy**2
        mean, square = self.mean / (1 - 0.9**number), self.square / (1 - 0.99**number)
        self.weights = (self.weights - learning_rate * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)

    def to_arrays(self) -> Mapping[str, FloatArray]:
        """Returns the state by name."""
        return {"weights": self.weights, "mean": self.mean, "square": self.square}


def keep_state(folder: RunDir, state: Adam, number: int) -> str:
    """Writes the state after step `number`; returns the hash that is to be committed with it.

    The file of the step before stays until this one is committed: a run that is killed in between goes on
    from it.
    """
    from safetensors.numpy import save

    content = save(dict(state.to_arrays()))
    write_bytes(_path(folder, number), content)
    for old in folder.private.glob("training-*.safetensors"):
        if old not in {_path(folder, number), _path(folder, number - 1)}:
            old.unlink()
    return hashlib.sha256(content).hexdigest()


def read_state(folder: RunDir, size: int, number: int, digest: str) -> Adam:
    """Reads the state after the last committed step.

    Args:
        folder: the run.
        size: number of trainable weights.
        number: of that step; 0 before the first.
        digest: the hash committed with it.

    Raises:
        PrivacyError: the file is gone or is not the one that was committed.
    """
    from safetensors.numpy import load

    if number == 0:
        return Adam.new(size)
    try:
        content = _path(folder, number).read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise PrivacyError(
            f"the weights after step {number} are gone or were changed, and a step is never drawn twice: "
            f"restore {_path(folder, number).name} in the run's private folder, or start a new run folder"
        )
    found = load(content)
    return Adam(weights=found["weights"], mean=found["mean"], square=found["square"])


def _path(folder: RunDir, number: int) -> Path:
    return folder.private / f"training-{number}.safetensors"
