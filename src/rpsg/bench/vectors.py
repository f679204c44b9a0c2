"""Vectors that the cells of a benchmark share: those of a seed compare with the same people."""

import io
import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from rpsg.rundir import write_bytes
from rpsg.types import Embedder, FloatArray, Trust


class KeptVectors:
    """An embedder that keeps what it computed; vectors of private texts, so its folder is as private.

    Args:
        embedder: that computes what is not kept yet.
        folder: made when it is needed.
    """

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._embedder = embedder
        self._folder = folder

    @property
    def name(self) -> str:
        """Name of the embedder."""
        return self._embedder.name

    @property
    def trust(self) -> Trust:
        """Where the embedder computes."""
        return self._embedder.trust

    @property
    def cosine_range(self) -> tuple[float, float]:
        """Cosine of unrelated and of near-identical texts."""
        return self._embedder.cosine_range

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Returns unit vectors, shape (len(texts), dimension); equal lists get equal vectors."""
        key = json.dumps([self.name, *texts]).encode()
        path = self._folder / f"{blake2b(key, digest_size=16).hexdigest()}.npy"
        if path.exists():
            kept: FloatArray = np.load(path, allow_pickle=False)
            return kept
        found = self._embedder.embed(texts)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = io.BytesIO()
        np.save(file, found, allow_pickle=False)
        write_bytes(path, file.getvalue(), private=True)
        return found
