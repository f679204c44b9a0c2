"""Unit vectors of private texts on disk, read piece by piece: memory does not grow with their number."""

import io
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rpsg.rundir import write_bytes, write_text
from rpsg.types import FloatArray

# Texts whose vectors are written, and after a kill made again, as a whole.
BLOCK = 1024
_KEY_BYTES = 16
_MODEL = "model.txt"

Rows = npt.NDArray[np.int64]


class VectorRows(Protocol):
    """Unit vectors, one row a text, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> FloatArray:
        """Reads some rows, in any order; shape (len(rows), d)."""


class VectorStore:
    """Vectors by text, appended to a folder; a run that is resumed finds those it had.

    A block is two files, `<number>.vectors.npy` (float32, one row a text) and `<number>.keys.npy` (a hash
    of each text). The second is written last: a block without it does not count.
    """

    def __init__(self, folder: Path, *, model: str) -> None:
        """Opens the vectors of one model; those of another are removed.

        Args:
            folder: in a private part of a run folder; made when it is missing.
            model: whose vectors these are.
        """
        self._folder = folder
        self._model = model
        self._row: dict[bytes, int] = {}
        self._starts: list[int] = [0]
        about = folder / _MODEL
        if folder.exists() and not (about.exists() and about.read_text(encoding="utf-8") == model):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        write_text(about, model)
        while (path := self._path(len(self._starts) - 1, "keys")).exists():
            self._know([row.tobytes() for row in np.load(path, allow_pickle=False)])

    def __len__(self) -> int:
        return self._starts[-1]

    def __repr__(self) -> str:
        return f"VectorStore(<{len(self)} vectors>)"

    def __getitem__(self, rows: Rows) -> FloatArray:
        """Reads some rows, in any order; shape (len(rows), d)."""
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        parts = [(block, np.flatnonzero(blocks == block)) for block in np.unique(blocks).tolist()]
        found: FloatArray | None = None
        for block, places in parts:
            # Opened and closed each time: pages of an open map would stay in memory.
            table = np.load(self._path(block, "vectors"), mmap_mode="r", allow_pickle=False)
            if found is None:
                found = np.empty((len(rows), table.shape[1]), dtype=np.float32)
            found[places] = table[rows[places] - self._starts[block]]
        return np.empty((0, 0), dtype=np.float32) if found is None else found

    def embed(
        self,
        texts: Iterable[str],
        embed: Callable[[Sequence[str]], FloatArray],
        *,
        on_block: Callable[[int], None] = lambda _done: None,
    ) -> "StoredVectors":
        """Returns the vectors of some texts; only new ones are computed, block by block.

        Args:
            texts: any texts, repeated ones too; a block of them is held in memory.
            embed: maps texts to unit vectors, one row a text.
            on_block: told after each block how many of the texts are done.
        """
        keys: list[bytes] = []
        new: dict[bytes, str] = {}
        for text in texts:
            keys.append(_key(text))
            if keys[-1] not in self._row:
                new[keys[-1]] = text
            if len(new) == BLOCK:
                self._append(new, embed)
                new = {}
                on_block(len(keys))
        if new:
            self._append(new, embed)
            on_block(len(keys))
        return StoredVectors(store=self, rows=np.asarray([self._row[key] for key in keys], dtype=np.int64))

    def adopt(self, folder: Path) -> None:
        """Takes over the blocks of another store of the same model; their files are moved."""
        about = folder / _MODEL
        if not about.exists() or about.read_text(encoding="utf-8") != self._model:
            return
        for keys in sorted(folder.glob("*.keys.npy")):
            vectors = keys.with_name(keys.name.replace(".keys.", ".vectors."))
            # A process killed in between moved the vectors alone: such a block is made again.
            if vectors.exists():
                number = len(self._starts) - 1
                vectors.replace(self._path(number, "vectors"))
                keys.replace(self._path(number, "keys"))
                self._know([row.tobytes() for row in np.load(self._path(number, "keys"), allow_pickle=False)])

    def _append(self, new: Mapping[bytes, str], embed: Callable[[Sequence[str]], FloatArray]) -> None:
        keys, vectors = list(new), embed(list(new.values()))
        number = len(self._starts) - 1
        table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), _KEY_BYTES)
        for kind, values in (("vectors", np.asarray(vectors, dtype=np.float32)), ("keys", table)):
            file = io.BytesIO()
            np.save(file, values, allow_pickle=False)
            write_bytes(self._path(number, kind), file.getvalue())
        self._know(keys)

    def _know(self, keys: Sequence[bytes]) -> None:
        self._row.update(zip(keys, range(len(self), len(self) + len(keys)), strict=True))
        self._starts.append(len(self) + len(keys))

    def _path(self, number: int, kind: str) -> Path:
        return self._folder / f"{number:06}.{kind}.npy"


@dataclass(frozen=True, slots=True, repr=False)
class StoredVectors:
    """Vectors of some texts, one row a text; a row is read when it is asked for."""

    store: VectorStore
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"StoredVectors(<{len(self)} vectors>)"

    def __getitem__(self, rows: Rows) -> FloatArray:
        return self.store[self.rows[rows]]

    def read(self) -> FloatArray:
        """Reads them all, shape (n, d)."""
        return self.store[self.rows]


def _key(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_KEY_BYTES).digest()
