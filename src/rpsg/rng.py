"""Experiment randomness that does not depend on the order of calls.

`Streams(seed).get("variants", 3)` always yields the same generator, whatever was drawn before it:
each stream is keyed by its name. This randomness makes experiments repeatable; it is public and
must never serve as privacy noise (see `rpsg.privacy.noise`).
"""

import hashlib

import numpy as np


class Streams:
    """A family of independent random generators, one per name."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def key(self, *name: str | int) -> int:
        """Returns a 63-bit integer that depends only on the seed and the name."""
        label = "\x1f".join(str(part) for part in (self.seed, *name))
        return int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest()) >> 1

    def get(self, *name: str | int) -> np.random.Generator:
        """Returns a fresh generator for this name."""
        return np.random.default_rng(self.key(*name))
