"""Private records of large files: their texts stay there, and one is read when it is asked for.

In memory is what a record costs without its text: its place in the file, a number for its labels, and its id
and unit as packed strings, where the data name them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from rpsg.errors import DataError
from rpsg.row_files import Places, read_again
from rpsg.types import Labels, PrivateRecord

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = npt.NDArray[np.int64]
# Numbers of files and of combinations of labels: half the size.
Codes = npt.NDArray[np.int32]
_READ_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of texts, as it was when it was first read."""

    path: Path
    column: str
    state: tuple[int, int]

    @classmethod
    def of(cls, path: Path, column: str) -> "TextFile":
        """Notes a file's size and time of change."""
        return cls(path, column, _state(path))

    def read(self, places: Places) -> list[str]:
        """Reads the texts at some places.

        Raises:
            DataError: the file was changed or removed meanwhile.
        """
        try:
            if _state(self.path) == self.state:
                return [clean(str(value)) for value in read_again(self.path, self.column, places)]
        except OSError:
            pass
        raise DataError(
            f"{self.path} was changed while it was used; start again with files that stay as they are"
        )


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def clean(text: str) -> str:
    """Returns a text without white space around it and Windows line ends."""
    return text.replace("\r\n", "\n").strip()


class StoredRecords(Sequence[PrivateRecord]):
    """Records in input order, read from their files as they are needed."""

    def __init__(
        self,
        *,
        files: Sequence[TextFile],
        file_of: Codes,
        places: Places,
        ids: "Names",
        units: "Names",
        labels: Sequence[Labels],
        label_of: Codes,
    ) -> None:
        """Keeps where the records are.

        Args:
            files: the files.
            file_of: number of each record's file.
            places: of each record in its file.
            ids: of the records.
            units: of the records.
            labels: the combinations of labels.
            label_of: number of each record's combination.
        """
        self.files = files
        self.file_of = file_of
        self.places = places
        self.ids = ids
        self.units = units
        self.labels = labels
        self.label_of = label_of

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return f"StoredRecords(<{len(self)} records>)"

    @overload
    def __getitem__(self, place: int) -> PrivateRecord: ...
    @overload
    def __getitem__(self, place: slice) -> "StoredRecords": ...
    def __getitem__(self, place: int | slice) -> "PrivateRecord | StoredRecords":
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        return self._read(np.arange(len(self))[[place]])[0]

    def __iter__(self) -> Iterator[PrivateRecord]:
        for start in range(0, len(self), _READ_AT_ONCE):
            yield from self._read(np.arange(start, min(start + _READ_AT_ONCE, len(self))))

    def take(self, rows: Numbers) -> "StoredRecords":
        """Returns some of the records; reads nothing."""
        return StoredRecords(
            files=self.files,
            file_of=self.file_of[rows],
            places=self.places[rows],
            ids=self.ids.take(rows),
            units=self.units.take(rows),
            labels=self.labels,
            label_of=self.label_of[rows],
        )

    def _read(self, rows: Numbers) -> list[PrivateRecord]:
        texts = [""] * len(rows)
        for number in np.unique(self.file_of[rows]).tolist():
            own = np.flatnonzero(self.file_of[rows] == number)
            for i, text in zip(own.tolist(), self.files[number].read(self.places[rows[own]]), strict=True):
                texts[i] = text
        ids, units = self.ids.take(rows).read(), self.units.take(rows).read()
        return [
            PrivateRecord(record_id=name, unit_id=unit, text=text, labels=self.labels[code])
            for name, unit, text, code in zip(ids, units, texts, self.label_of[rows].tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True, repr=False)
class Names:
    """Ids or units: strings, packed strings, or, without a column of them, the numbers of rows from 0."""

    values: "list[str] | pa.Array | Numbers"

    def take(self, rows: Numbers) -> "Names":
        """Returns some of them."""
        if isinstance(self.values, list):
            return Names([self.values[i] for i in rows.tolist()])
        return Names(self.values[rows] if isinstance(self.values, np.ndarray) else self.values.take(rows))

    def read(self) -> list[str]:
        """Returns them all as strings."""
        if isinstance(self.values, list):
            return self.values
        if isinstance(self.values, np.ndarray):
            return [f"row-{row + 1}" for row in self.values.tolist()]
        found: list[str] = self.values.to_pylist()
        return found


def units_of(records: Sequence[PrivateRecord]) -> list[str]:
    """Returns the unit of each record; reads no text."""
    if isinstance(records, StoredRecords):
        return records.units.read()
    return [record.unit_id for record in records]


def take(records: Sequence[PrivateRecord], rows: Sequence[int]) -> Sequence[PrivateRecord]:
    """Returns some of the records, in the order asked for."""
    if isinstance(records, StoredRecords):
        return records.take(np.asarray(rows, dtype=np.int64))
    return tuple(records[i] for i in rows)
