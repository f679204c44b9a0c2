"""Columns -> private records: what is usable, ids, units, labels; checks and their messages.

Rows come some at a time. What is kept of a row is its text, or where it is; row numbers in messages count
from 1, without a header and without blank lines.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from rpsg.errors import ConfigError, DataError
from rpsg.row_files import MAX_ROW_BYTES, Chunk, Places, Wanted
from rpsg.stored import Codes, Names, Numbers, StoredRecords, TextFile, clean
from rpsg.types import Labels, PrivateCorpus, PrivateRecord
from rpsg.writers import RELEASED_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

Number = TypeVar("Number", np.int32, np.int64)

DEFAULT_ID_COLUMN = "id"
# Below this a label column may well have a value of its own in most rows.
_MIN_ROWS_TO_JUDGE_LABELS = 20
_HASHED_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which column is what."""

    text: str
    labels: tuple[str, ...]
    unit: str | None
    id: str | None

    def check(self) -> None:
        """Refuses roles that contradict each other, before anything is read."""
        twice = [name for name, count in Counter(self.labels).items() if count > 1]
        if twice:
            raise ConfigError(f"label column {twice[0]!r} is named twice")
        for name in self.labels:
            if name in {self.text, self.unit, self.id}:
                raise ConfigError(
                    f"label column {name!r} is also the text, unit or id column; labels are released with "
                    "every synthetic text, so these cannot be labels"
                )
            if name in RELEASED_COLUMNS:
                raise ConfigError(
                    f"label column {name!r} would collide with the released column of that name; rename it"
                )
        if self.text in {self.unit, self.id}:
            raise ConfigError(f"text column {self.text!r} is also the unit or id column; name two columns")

    def wanted(self) -> Wanted:
        """Returns the columns to read; "id" where there is one that is free to name the rows."""
        named = (self.text, *self.labels, self.unit, self.id)
        required = tuple(dict.fromkeys(name for name in named if name is not None))
        is_free = self.id is None and DEFAULT_ID_COLUMN not in required
        return Wanted(required=required, optional=(DEFAULT_ID_COLUMN,) if is_free else ())

    @property
    def id_column(self) -> str | None:
        """The column the ids come from where there is such a column; None for row numbers."""
        if self.id is not None:
            return self.id
        # A column "id" that names units or holds the texts is not the rows' id.
        return DEFAULT_ID_COLUMN if DEFAULT_ID_COLUMN not in (self.text, self.unit) else None


@dataclass(slots=True, kw_only=True)
class Gathered:
    """What was read so far.

    Attributes:
        roles: which column is what.
        min_words: shorter texts are skipped and counted.
        files: the files that keep their texts; empty where the texts are kept in memory.
    """

    roles: Roles
    min_words: int
    files: tuple[TextFile, ...] = ()
    n_rows: int = 0
    skipped: dict[str, int] = field(default_factory=lambda: {"empty": 0, "too short": 0})
    texts: list[str] = field(default_factory=list)
    text_hashes: list[Numbers] = field(default_factory=list)
    rows: list[Numbers] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)
    file_of: list[Codes] = field(default_factory=list)
    ids: "_Keys" = field(init=False)
    units: "_Keys" = field(init=False)
    label_values: dict[str, set[str]] = field(init=False)
    label_codes: dict[tuple[str, ...], int] = field(default_factory=dict)
    label_of: list[Codes] = field(default_factory=list)

    def __post_init__(self) -> None:
        packed = bool(self.files)
        self.ids = _Keys(column=self.roles.id_column or "", role="id", packed=packed)
        self.units = _Keys(column=self.roles.unit or "", role="unit", packed=packed)
        self.label_values = {name: set() for name in self.roles.labels}

    def add(self, chunk: Chunk) -> None:
        """Takes the usable rows of a chunk.

        Raises:
            DataError: a value cannot be used.
        """
        first = self.n_rows
        self.n_rows += len(chunk)
        texts = self._usable(chunk.columns[self.roles.text], first)
        if not texts:
            return
        kept = np.asarray(list(texts), dtype=np.int64)
        self.rows.append(kept + first)
        if self.roles.unit is None:
            self.text_hashes.append(np.asarray([hash(text) for text in texts.values()], dtype=np.int64))
        if self.files:
            assert chunk.places is not None
            self.places.append(chunk.places[kept])
            self.file_of.append(np.full(len(kept), chunk.file, dtype=np.int32))
        else:
            self.texts += texts.values()
        for keys in (self.ids, self.units):
            if keys.column in chunk.columns:
                keys.add(chunk.columns[keys.column], list(texts), first)
        self._add_labels(chunk, list(texts), first)

    def _usable(self, values: Sequence[object], first: int) -> dict[int, str]:
        texts: dict[int, str] = {}
        column = self.roles.text
        for i, value in enumerate(values):
            if value is None or _is_nan(value):
                self.skipped["empty"] += 1
                continue
            if not isinstance(value, str):
                raise DataError(
                    f"column {column!r} is not text: row {first + i + 1} holds a {type(value).__name__}; "
                    "name the column with the texts"
                )
            _check_characters(value, column=column, row=first + i)
            text = clean(value)
            if text and len(text.split()) >= self.min_words:
                texts[i] = text
            else:
                self.skipped["too short" if text else "empty"] += 1
        return texts

    def _add_labels(self, chunk: Chunk, kept: Sequence[int], first: int) -> None:
        columns = []
        for name in self.roles.labels:
            values = chunk.columns[name]
            columns.append([_to_key(values[i], column=name, row=first + i) for i in kept])
            self.label_values[name].update(columns[-1])
        codes = self.label_codes
        found = zip(*columns, strict=True) if columns else [()] * len(kept)
        self.label_of.append(
            np.asarray([codes.setdefault(keys, len(codes)) for keys in found], dtype=np.int32)
        )

    def finish(self) -> PrivateCorpus:
        """Returns the corpus.

        Raises:
            DataError: no text is usable, or ids, units or labels are not.
        """
        if not self.rows:
            empty, short = self.skipped.values()
            raise DataError(
                f"column {self.roles.text!r} has no usable text: of {self.n_rows} rows {empty} are empty and "
                f"{short} have fewer than min_words = {self.min_words} words"
            )
        warnings = self._warn()
        rows = _join(self.rows)
        ids = self.ids.finish(rows, required=self.roles.id is not None)
        self._check_repeats(ids, rows)
        units = self.units.finish(rows, required=True) if self.roles.unit is not None else ids
        for name, values in self.label_values.items():
            _check_label_values(name, len(values - {""}), len(rows))
        return PrivateCorpus(
            records=self._records(ids, units),
            label_columns=self.roles.labels,
            has_units=self.roles.unit is not None,
            skipped=self.skipped,
            warnings=warnings,
        )

    def _records(self, ids: Names, units: Names) -> Sequence[PrivateRecord]:
        labels: list[Labels] = [
            {name: key for name, key in zip(self.roles.labels, keys, strict=True) if key}
            for keys in self.label_codes
        ]
        label_of = _join(self.label_of)
        if self.files:
            return StoredRecords(
                files=self.files,
                file_of=_join(self.file_of),
                places=_join(self.places),
                ids=ids,
                units=units,
                labels=labels,
                label_of=label_of,
            )
        names = ids.read()
        owners = names if units is ids else units.read()
        return tuple(
            PrivateRecord(record_id=name, unit_id=unit, text=text, labels=labels[code])
            for name, unit, text, code in zip(names, owners, self.texts, label_of.tolist(), strict=True)
        )

    def _check_repeats(self, ids: Names, rows: Numbers) -> None:
        if isinstance(ids.values, np.ndarray):
            return
        hashes = np.concatenate(
            [
                np.asarray([hash(name) for name in ids.take(part).read()], dtype=np.int64)
                for part in np.array_split(np.arange(len(rows)), len(rows) // _HASHED_AT_ONCE + 1)
            ]
        )
        _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
        later = np.flatnonzero(first[which] != np.arange(len(rows)))
        if not len(later):
            return
        names, before = ids.take(later).read(), ids.take(first[which[later]]).read()
        repeats = [i for i, (name, other) in enumerate(zip(names, before, strict=True)) if name == other]
        if repeats:
            row, earlier = rows[later[repeats[0]]], rows[first[which[later[repeats[0]]]]]
            raise DataError(
                f"id column {self.ids.column!r}: {len(repeats)} rows repeat the id of an earlier row, first "
                f"row {row + 1} that of row {earlier + 1}; make ids unique, or, if it names persons, give it "
                "as the unit column"
            )

    def _warn(self) -> tuple[str, ...]:
        if self.roles.unit is not None:
            return ()
        hashes = _join(self.text_hashes)
        hashes.sort()
        n_repeats = int((hashes[1:] == hashes[:-1]).sum())
        if not n_repeats:
            return ()
        return (
            f"{n_repeats} rows repeat the text of another row word for word. Without a unit column every row "
            "counts as a unit of its own, so whoever wrote several rows is protected less than the numbers "
            "say: remove repeated rows, or name a unit column.",
        )


def _join(parts: list[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    # The parts are given up, so that nothing is in memory twice for long.
    whole = np.concatenate(parts)
    parts.clear()
    return whole


@dataclass(slots=True, kw_only=True)
class _Keys:
    """The ids or units read so far; packed, or as strings."""

    column: str
    role: str
    packed: bool
    parts: list["list[str] | pa.Array"] = field(default_factory=list)
    n_keys: int = 0
    n_blank: int = 0
    first_blank: int = 0

    def add(self, values: Sequence[object], kept: Sequence[int], first: int) -> None:
        keys = [_to_key(values[i], column=self.column, row=first + i) for i in kept]
        for i, key in zip(kept, keys, strict=True):
            if not key:
                self.first_blank = self.first_blank if self.n_blank else first + i
                self.n_blank += 1
        self.n_keys += len(keys)
        self.parts.append(_pack(keys) if self.packed else keys)

    def finish(self, rows: Numbers, *, required: bool) -> Names:
        if not self.n_keys or (self.n_blank == len(rows) and not required):
            return Names(rows)
        if self.n_blank:
            raise DataError(
                f"{self.role} column {self.column!r} is blank in {self.n_blank} rows, first in row "
                f"{self.first_blank + 1}; every row with a text needs its {self.role}"
            )
        if self.packed:
            import pyarrow as pa

            return Names(pa.concat_arrays(self.parts))
        return Names([key for part in self.parts for key in part])


def _pack(keys: Sequence[str]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(keys, type=pa.large_string())


def _check_label_values(name: str, n_values: int, n_rows: int) -> None:
    if n_values == 0:
        raise DataError(f"label column {name!r} is blank in every row; leave it out")
    if n_rows >= _MIN_ROWS_TO_JUDGE_LABELS and n_values > n_rows / 2:
        raise DataError(
            f"label column {name!r} has {n_values} different values in {n_rows} rows, more than half as "
            "many; labels are learnt from, and can be released, so many rows must share one: leave it out or "
            "group it"
        )


def _check_characters(value: str, *, column: str, row: int) -> None:
    if "\0" in value:
        raise DataError(f"column {column!r}: row {row + 1} holds a NUL byte; the file may be damaged")
    try:
        n_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        n_bytes = -1
    if n_bytes < 0:
        raise DataError(
            f"column {column!r}: row {row + 1} holds half of a character (an unpaired surrogate); repair the "
            "program that wrote it, or delete the row"
        )
    if n_bytes >= MAX_ROW_BYTES:
        raise DataError(
            f"column {column!r}: row {row + 1} has {n_bytes:,} bytes, the limit is {MAX_ROW_BYTES:,}; "
            "split it into rows of one text each"
        )


def _to_key(value: object, *, column: str, row: int) -> str:
    # Ids, units and labels: any scalar as text; a column of whole numbers with gaps arrives as floats.
    if value is None or _is_nan(value):
        return ""
    if isinstance(value, list | dict | bytes):
        raise DataError(
            f"column {column!r}: row {row + 1} holds a {type(value).__name__}; ids, units and labels must be "
            "text or numbers"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    key = str(value).strip()
    _check_characters(key, column=column, row=row)
    return key


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and value != value  # noqa: PLR0124 (only NaN differs from itself)
