"""Files, folders, data frames and tables -> columns of plain values.

Nothing here interprets a value. A message names files, columns, lines and counts, never a value; errors
are raised outside `except` blocks where the original exception holds text of the file.
"""

import csv
import difflib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from rpsg.errors import ConfigError, DataError, MissingExtra

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Source: TypeAlias = Union[str, Path, "pd.DataFrame", "pa.Table"]
Columns = dict[str, list[object]]
# Given the names of all columns, returns those to read.
Choose = Callable[[Sequence[str]], Sequence[str]]

MAX_ROW_BYTES = 1_000_000
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_SUFFIXES = (*_DELIMITERS, *_JSON_LINES, ".parquet")
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_columns(source: Source, choose: Choose) -> Columns:
    """Reads the chosen columns of a data set.

    Args:
        source: path of a csv, tsv, jsonl or parquet file or of a Hugging Face data set folder; a pandas
            DataFrame; a pyarrow Table.
        choose: is given the names of all columns and returns those to read.

    Returns:
        Column name to one value a row; a missing value is None.

    Raises:
        ConfigError: a chosen column does not exist.
        DataError: the source is missing, empty, damaged or not of a known kind.
        MissingExtra: a Hugging Face folder without the package `datasets`.
    """
    is_path = isinstance(source, str | Path)

    def choose_known(names: Sequence[str]) -> Sequence[str]:
        wanted = choose(names)
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ConfigError(_describe_missing_column(unknown[0], names))
        return wanted

    columns = _read_path(Path(source), choose_known) if is_path else _read_object(source, choose_known)  # type: ignore[arg-type]
    if not any(columns.values()):
        raise DataError(f"{source if is_path else 'the data set'} has columns but no rows")
    return columns


# One word of letters, digits, underscores, dots and hyphens that begins with a letter.
_COLUMN_NAME = re.compile(r"[A-Za-z_][\w.-]{0,30}")


def _describe_missing_column(name: str, names: Sequence[str]) -> str:
    # A file without a header has a private row in its place: only what looks like names is shown.
    if not all(_COLUMN_NAME.fullmatch(other) for other in names):
        return (
            f"there is no column {name!r}; the data have {len(names)} columns, not listed because not all of "
            "them look like names: does the first line hold column names?"
        )
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no column {name!r}; {hint}columns are: {', '.join(map(repr, names))}"


# --- files ---------------------------------------------------------------------------------------


def _read_path(path: Path, choose: Choose) -> Columns:
    try:
        if path.is_dir():
            return _read_folder(path, choose)
        if not path.exists():
            raise DataError(_describe_missing(path))
        return _read_file(path, choose)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise DataError(f"{path} cannot be read: {reason}")


def _read_file(path: Path, choose: Choose) -> Columns:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(
            f"{path}: unknown kind of file {suffix!r}; known are {', '.join(_SUFFIXES)} "
            "and a Hugging Face data set folder"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    if suffix == ".parquet":
        return _read_parquet(path, choose)
    if suffix in _DELIMITERS:
        return _read_delimited(path, choose, delimiter=_DELIMITERS[suffix])
    return _read_json_lines(path, choose)


def _describe_missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist, nor does its folder {folder}"
    near = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=1)
    return f"{path} does not exist" + (f"; did you mean {folder / near[0]}?" if near else "")


def _decode_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields line number (from 1) and text, line end included."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(_UTF16_MARKS):
                raise DataError(f"{path} is UTF-16; save it as UTF-8")
            body = line.removeprefix(_UTF8_MARK) if number == 1 else line
            if b"\0" in body:
                raise DataError(
                    f"{path}: NUL byte at byte offset {offset + line.index(0)} (line {number}); the file is "
                    "damaged, or it is UTF-16: save it as UTF-8"
                )
            text = _decode(body)
            if isinstance(text, int):
                at = offset + len(line) - len(body) + text
                raise DataError(
                    f"{path} is not UTF-8: first wrong byte at byte offset {at} (line {number}); "
                    "convert it from its encoding (often Windows-1252 or Latin-1) to UTF-8"
                )
            yield number, text
            offset += len(line)


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


def _read_delimited(path: Path, choose: Choose, *, delimiter: str) -> Columns:
    with _long_fields():
        rows = _parse_delimited(path, delimiter=delimiter)
        _, header = next(rows, (0, []))
        if not header:
            raise DataError(f"{path} is empty: it holds blank lines only")
        _check_distinct(header)
        wanted = [(name, header.index(name)) for name in choose(header)]
        columns: Columns = {name: [] for name, _ in wanted}
        for line, row in rows:
            if len(row) != len(header):
                raise DataError(
                    f"{path}: the row that starts in line {line} has {len(row)} fields, the header has "
                    f"{len(header)}; quote fields that contain {delimiter!r}, quotes or line breaks"
                )
            for name, position in wanted:
                columns[name].append(row[position])
    return columns


def _parse_delimited(path: Path, *, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # Yields the line in which a row starts, and its fields. Blank lines are no rows.
    reader = csv.reader((line for _, line in _decode_lines(path)), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
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
                f"{path}: the row that starts in line {start} cannot be read ({problem}); look for an "
                f"unclosed or stray quote there; a field may have {MAX_ROW_BYTES:,} characters"
            )
        if row:
            yield start, row


def _read_json_lines(path: Path, choose: Choose) -> Columns:
    rows = [_parse_json(path, number, line) for number, line in _decode_lines(path) if line.strip()]
    if not rows:
        raise DataError(f"{path} is empty: it holds blank lines only")
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in rows] for name in choose(list(names))}


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


def _read_parquet(path: Path, choose: Choose) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, ValueError):
        names = None
    if names is None:
        raise DataError(f"{path} is no parquet file, or it is damaged")
    _check_distinct(names)
    wanted = list(choose(names))
    try:
        return _to_columns(pq.ParquetFile(path).read(columns=wanted))
    except (pa.ArrowException, ValueError) as error:
        problem = type(error).__name__
    raise DataError(f"{path} is damaged: its columns {wanted} cannot be read ({problem})")


# --- folders -------------------------------------------------------------------------------------


def _read_folder(path: Path, choose: Choose) -> Columns:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(item.name for item in path.iterdir() if (item / "state.json").is_file())
        named = splits[0] if splits else "train"
        raise DataError(
            f"{path} holds several splits ({', '.join(splits) or 'none found'}); name one: {path / named}"
        )
    if not (path / "state.json").is_file():
        files = sorted(item.name for item in path.iterdir() if item.suffix.lower() in _SUFFIXES)
        known = f"; name a file in it: {', '.join(files[:5])}" if files else ""
        raise DataError(f"{path} is a folder, but no Hugging Face data set made by save_to_disk{known}")
    return _read_hugging_face(path, choose)


def _read_hugging_face(path: Path, choose: Choose) -> Columns:
    try:
        import datasets
    except ImportError:
        raise MissingExtra(
            f"{path} is a Hugging Face data set folder; reading it needs: pip install 'rpsg[hf]'"
        ) from None
    import pyarrow as pa

    try:
        data: datasets.Dataset = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        data, problem = None, type(error).__name__
    if data is None:
        raise DataError(f"{path} is a damaged Hugging Face data set folder ({problem})")
    wanted = list(choose(data.column_names))
    # Arrow format resolves the index mapping of a shuffled or filtered data set.
    columns = _to_columns(data.select_columns(wanted).with_format("arrow")[:])
    for name in wanted:
        feature = data.features[name]
        if isinstance(feature, datasets.ClassLabel):
            columns[name] = [_class_name(feature.names, value) for value in columns[name]]
    return columns


def _class_name(names: Sequence[str], value: object) -> str | None:
    # Hugging Face writes -1 where a class is not known.
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


# --- objects in memory ---------------------------------------------------------------------------


def _read_object(source: object, choose: Choose) -> Columns:
    import pyarrow as pa

    if isinstance(source, pa.Table):
        _check_distinct(source.column_names)
        return _to_columns(source.select(list(choose(source.column_names))))
    # Without pandas imported nothing can be a DataFrame.
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return _read_frame(source, choose)
    raise DataError(
        f"cannot read data from a {type(source).__name__}; give a path, a pandas DataFrame or a pyarrow Table"
    )


def _read_frame(frame: "pd.DataFrame", choose: Choose) -> Columns:
    names = [str(name) for name in frame.columns]
    _check_distinct(names)
    return {name: _read_series(name, frame.iloc[:, names.index(name)]) for name in choose(names)}


def _read_series(name: str, series: "pd.Series") -> list[object]:
    import pyarrow as pa

    try:
        # Arrow knows every way in which pandas writes "missing".
        values: list[object] = pa.array(series, from_pandas=True).to_pylist()
        return values
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    raise DataError(
        f"column {name!r} holds values of different kinds or broken Unicode; convert it: "
        f"frame[{name!r}].astype(str)"
    )


def _to_columns(table: "pa.Table") -> Columns:
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _check_distinct(names: Iterable[str]) -> None:
    first: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if first.setdefault(name, position) != position:
            raise DataError(
                f"columns {first[name]} and {position} have the same name; every column needs its own"
            )
