"""A run whose writer is on a server, in a process of its own: python run_until_killed.py FOLDER URL."""

import hashlib
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from rpsg import pipeline, rundir
from rpsg.config import RunConfig
from rpsg.data import sample_path
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


def main(folder: str, url: str) -> None:
    # The run's random id is the only thing on the card that differs from run to run.
    rundir.secrets = SimpleNamespace(token_hex=lambda n: "0" * 2 * n)  # type: ignore[assignment]
    config = RunConfig.parse(
        {
            "guarantee": "end-to-end",
            "epsilon": 8,
            "n": 30,
            "n_units_bound": 500,
            "data": {"path": str(sample_path("posts_train.jsonl"))},
            "models": {"write": "own:m", "embed": "hash", "sentiment": None},
            "endpoints": {"own": {"base_url": url}},
            "vote": {"rounds": 3},
            "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
            "evaluate": {"enabled": False},
            "calling": {"max_concurrency": 8},
            "output": {"folder": folder},
        }
    )
    pipeline.run(config, pipeline.load_corpus(config), noise=KeyedNoise())


if __name__ == "__main__":
    main(*sys.argv[1:])
