"""Files of rows -> columns, some rows at a time, and where each row is, so that it can be read again.

Nothing here interprets a value. A message names files, columns, lines and counts, never a value; errors
are raised outside `except` blocks where the original exception holds text of the file.
"""

import csv
import difflib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from rpsg.errors import ConfigError, DataError

Columns = dict[str, list[object]]
Places = npt.NDArray[np.int64]
# Where a row begins and ends in its file, and its values.
Row = tuple[int, int, Sequence[object]]

MAX_ROW_BYTES = 1_000_000
# A longer row is not read to its end: a file without line ends would be in memory as a whole.
MAX_ALL_BYTES = 2**26
# What is held in memory at a time.
CHUNK_ROWS = 2_000
CHUNK_BYTES = 2**25
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*DELIMITERS, *JSON_LINES, ".parquet")
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Chunk:
    """Some rows, in input order.

    Attributes:
        columns: column name to one value a row; a missing value is None.
        file: number of the file they are in.
        places: where each row is in it, shape (rows, 2): first byte and last + 1, or, in parquet, row group
            and row. None for what is not in such a file.
    """

    columns: Columns
    file: int = 0
    places: Places | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Columns to read: those that must exist, and those that are read where they exist."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def among(self, names: Sequence[str]) -> list[str]:
        """Returns the columns to read, each once.

        Raises:
            ConfigError: a required one does not exist.
        """
        missing = [name for name in self.required if name not in names]
        if missing:
            raise ConfigError(_describe_missing_column(missing[0], names))
        return list(dict.fromkeys([*self.required, *(name for name in self.optional if name in names)]))


# One word of letters, digits, underscores, dots and hyphens that begins with a letter.
_COLUMN_NAME = re.compile(r"[A-Za-z_][\w.-]{0,30}")


def _describe_missing_column(name: str, names: Sequence[str]) -> str:
    separators = {";": "semicolons", "\t": "tabs", "|": "bars"}
    for sign, words in separators.items():
        if len(names) == 1 and name in names[0].split(sign):
            return (
                f"there is no column {name!r}: the columns of this file are separated by {words}; save it "
                "with commas (or, with tabs, under a name that ends in .tsv)"
            )
    # A file without a header has a private row in its place: only what looks like names is shown.
    if not all(_COLUMN_NAME.fullmatch(other) for other in names):
        return (
            f"there is no column {name!r}; the data have {len(names)} columns, not listed because not all of "
            "them look like names: does the first line hold column names?"
        )
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no column {name!r}; {hint}columns are: {', '.join(map(repr, names))}"


def check_distinct(names: Iterable[str]) -> None:
    """Refuses two columns of the same name."""
    first: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if first.setdefault(name, position) != position:
            raise DataError(
                f"columns {first[name]} and {position} have the same name; every column needs its own"
            )


# --- reading rows --------------------------------------------------------------------------------


def read_rows(path: Path, wanted: Wanted, number: int) -> Iterator[Chunk]:
    """Reads some columns of a csv, tsv, jsonl or parquet file.

    Args:
        path: the file.
        wanted: the columns.
        number: of the file.

    Raises:
        ConfigError: a required column does not exist.
        DataError: the file is empty or damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _read_parquet(path, wanted, number)
        return
    with path.open("rb") as file:
        lines = _Lines(path, file)
        if suffix in DELIMITERS:
            names, rows = _read_delimited(lines, wanted, delimiter=DELIMITERS[suffix])
        else:
            names, rows = list(dict.fromkeys([*wanted.required, *wanted.optional])), _read_json(lines, wanted)
        yield from _gather(rows, names, number)


def _gather(rows: Iterator[Row], names: Sequence[str], number: int) -> Iterator[Chunk]:
    while True:
        with _long_fields():
            places, values = _take(rows)
        if not places:
            return
        columns = {name: list(column) for name, column in zip(names, zip(*values, strict=True), strict=True)}
        yield Chunk(columns=columns, file=number, places=np.asarray(places, dtype=np.int64))


def _take(rows: Iterator[Row]) -> tuple[list[tuple[int, int]], list[Sequence[object]]]:
    places: list[tuple[int, int]] = []
    values: list[Sequence[object]] = []
    n_bytes = 0
    for start, end, row in rows:
        places.append((start, end))
        values.append(row)
        n_bytes += end - start
        if len(places) >= CHUNK_ROWS or n_bytes >= CHUNK_BYTES:
            break
    return places, values


class _Lines:
    """The lines of a file, line ends included, and how many lines and bytes have been given out.

    `row` is where the row begins that is being read; whoever reads rows sets it.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.number = 0
        self.offset = 0
        self.row = 0
        self._file = file

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_ALL_BYTES + 1):
            self.number += 1
            if self.offset + len(line) - self.row > MAX_ALL_BYTES:
                raise DataError(
                    f"{self.path}: a row that ends in line {self.number} or later has more than "
                    f"{MAX_ALL_BYTES:,} bytes; write one row a line (a JSON array is not read), look for an "
                    "unclosed quote, or leave out columns that are no text"
                )
            text = self._decode(line)
            self.offset += len(line)
            yield text

    def _decode(self, line: bytes) -> str:
        is_first = self.number == 1
        if is_first and line.startswith(_UTF16_MARKS):
            raise DataError(f"{self.path} is UTF-16; save it as UTF-8")
        body = line.removeprefix(_UTF8_MARK) if is_first else line
        if b"\0" in body:
            raise DataError(
                f"{self.path}: NUL byte at byte offset {self.offset + line.index(0)} (line {self.number}); "
                "the file is damaged, or it is UTF-16: save it as UTF-8"
            )
        text = _decode(body)
        if isinstance(text, int):
            at = self.offset + len(line) - len(body) + text
            raise DataError(
                f"{self.path} is not UTF-8: first wrong byte at byte offset {at} (line {self.number}); "
                "convert it from its encoding (often Windows-1252 or Latin-1) to UTF-8"
            )
        return text


def _decode(line: bytes) -> str | int:
    # Returns the position of the first wrong byte instead of an exception that holds the line.
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start


@contextmanager
def _long_fields() -> Iterator[None]:
    # The csv module's own limit, 128 KiB, is per process and below what we take.
    before = csv.field_size_limit(MAX_ROW_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_delimited(lines: _Lines, wanted: Wanted, *, delimiter: str) -> tuple[list[str], Iterator[Row]]:
    rows = _parse_delimited(lines, delimiter=delimiter)
    with _long_fields():
        _, _, _, header = next(rows, (0, 0, 0, []))
    if not header:
        raise DataError(f"{lines.path} is empty: it holds blank lines only")
    check_distinct(header)
    names = wanted.among(header)
    positions = [header.index(name) for name in names]

    def chosen() -> Iterator[Row]:
        for line, start, end, row in rows:
            if len(row) != len(header):
                raise DataError(
                    f"{lines.path}: the row that starts in line {line} has {len(row)} fields, the header has "
                    f"{len(header)}; quote fields that contain {delimiter!r}, quotes or line breaks"
                )
            yield start, end, [row[i] for i in positions]

    return names, chosen()


def _parse_delimited(lines: _Lines, *, delimiter: str) -> Iterator[tuple[int, int, int, list[str]]]:
    # Yields a row's first line, where it starts and ends, and its fields; blank lines are no rows.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line, start = reader.line_num + 1, lines.offset
        lines.row = start
        problem = ""
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # The module's messages hold limits and quote characters, never content.
            problem = str(error)
        if problem:
            raise DataError(
                f"{lines.path}: the row that starts in line {line} cannot be read ({problem}); look for an "
                f"unclosed or stray quote there; a field may have {MAX_ROW_BYTES:,} characters"
            )
        if row:
            yield line, start, lines.offset, row


def _read_json(lines: _Lines, wanted: Wanted) -> Iterator[Row]:
    names = list(dict.fromkeys([*wanted.required, *wanted.optional]))
    seen: dict[str, None] = {}
    start, n_rows = 0, 0
    for line in lines:
        if line.strip():
            n_rows += 1
            row = _parse_json(lines.path, lines.number, line)
            if not row.keys() <= seen.keys():
                seen.update(dict.fromkeys(row))
            yield start, lines.offset, [row.get(name) for name in names]
        start = lines.row = lines.offset
    if not n_rows:
        raise DataError(f"{lines.path} is empty: it holds blank lines only")
    wanted.among(list(seen))


def _parse_json(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        row, problem = None, f"is not valid JSON at character {error.colno}"
    except (ValueError, RecursionError):
        row, problem = None, "is not valid JSON: a number is too long or values are nested too deeply"
    else:
        problem = f"holds a JSON {type(row).__name__}, not an object"
    if isinstance(row, dict):
        return row
    hint = " of the form {...}; a JSON array or an indented file is not read" if number == 1 else ""
    raise DataError(f"{path}: line {number} {problem}; every line must be one JSON object{hint}")


def _read_parquet(path: Path, wanted: Wanted, number: int) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except (pa.ArrowException, ValueError):
        names = None
    if names is None:
        raise DataError(f"{path} is no parquet file, or it is damaged")
    check_distinct(names)
    columns = wanted.among(names)
    problem = ""
    try:
        for group in range(file.num_row_groups):
            at = 0
            for batch in file.iter_batches(CHUNK_ROWS, row_groups=[group], columns=columns):
                rows = np.arange(at, at + batch.num_rows)
                at += batch.num_rows
                yield Chunk(
                    columns={name: batch.column(name).to_pylist() for name in columns},
                    file=number,
                    places=np.stack([np.full(len(rows), group), rows], axis=1),
                )
    except (pa.ArrowException, ValueError) as error:
        problem = type(error).__name__
    finally:
        file.close()
    if problem:
        raise DataError(f"{path} is damaged: its columns {columns} cannot be read ({problem})")


# --- reading again -------------------------------------------------------------------------------


def read_again(path: Path, column: str, places: Places) -> list[object]:
    """Reads one column of some rows of a file that was read before and has not changed since.

    Args:
        path: the file.
        column: its values are returned, one a place.
        places: of the rows, as `Chunk` gives them.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet_again(path, column, places)
    with path.open("rb") as file, _long_fields():
        if suffix in JSON_LINES:
            return [json.loads(raw.removeprefix(_UTF8_MARK)).get(column) for raw in _pieces(file, places)]
        delimiter = DELIMITERS[suffix]
        _, _, _, header = next(_parse_delimited(_Lines(path, file), delimiter=delimiter))
        position = header.index(column)
        found: list[object] = []
        for raw in _pieces(file, places):
            lines = [line.decode() for line in io.BytesIO(raw)]
            found.append(next(csv.reader(lines, delimiter=delimiter, strict=True))[position])
        return found


def _pieces(file: BinaryIO, places: Places) -> Iterator[bytes]:
    for start, end in places.tolist():
        file.seek(start)
        yield file.read(end - start)


def _read_parquet_again(path: Path, column: str, places: Places) -> list[object]:
    import pyarrow.parquet as pq

    found: list[object] = [None] * len(places)
    with pq.ParquetFile(path) as file:
        for group in np.unique(places[:, 0]).tolist():
            wanted = np.flatnonzero(places[:, 0] == group)
            rows, at = places[wanted, 1], 0
            # Piece by piece: a file of one row group would be in memory as a whole.
            for batch in file.iter_batches(CHUNK_ROWS, row_groups=[group], columns=[column]):
                inside = np.flatnonzero((rows >= at) & (rows < at + batch.num_rows))
                values = batch.column(0).take(rows[inside] - at).to_pylist()
                for i, value in zip(wanted[inside].tolist(), values, strict=True):
                    found[i] = value
                at += batch.num_rows
                if at > rows.max():
                    break
    return found
