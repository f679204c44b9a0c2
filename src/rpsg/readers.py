"""Files, folders, data frames and tables -> columns of plain values, some rows at a time.

Nothing here interprets a value. A message names files, columns, lines and counts, never a value; errors
are raised outside `except` blocks where the original exception holds text of the file.
"""

import difflib
import glob
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from rpsg.errors import DataError, MissingExtra
from rpsg.row_files import CHUNK_ROWS, SUFFIXES, Chunk, Columns, Wanted, check_distinct, read_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Source: TypeAlias = Union[str, Path, "pd.DataFrame", "pa.Table"]


def find_files(source: Source) -> list[Path]:
    """Returns the files of rows that a source names; none for a folder or what is in memory.

    A path with `*`, `?` or `[...]` names all files that match, in alphabetical order.

    Raises:
        DataError: a file is missing, empty or of no known kind.
    """
    if not isinstance(source, str | Path) or Path(source).is_dir():
        return []
    path = Path(source)
    paths = [path]
    if not path.exists() and glob.has_magic(str(path)):
        paths = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        if not paths:
            raise DataError(f"no file matches {path}")
    for item in paths:
        _check_file(item)
    return paths


def read_chunks(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """Reads some columns of a data set, some rows at a time.

    Args:
        source: path of a csv, tsv, jsonl or parquet file, a pattern of such paths, or path of a Hugging Face
            data set folder; a pandas DataFrame; a pyarrow Table.
        wanted: the columns.

    Raises:
        ConfigError: a required column does not exist.
        DataError: the source is missing, empty, damaged or not of a known kind.
        MissingExtra: a Hugging Face folder without the package `datasets`.
    """
    n_rows = 0
    for chunk in _read_all(source, wanted):
        n_rows += len(chunk)
        if len(chunk):
            yield chunk
    if not n_rows:
        what = source if isinstance(source, str | Path) else "the data set"
        raise DataError(f"{what} has columns but no rows")


def _read_all(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    if not isinstance(source, str | Path):
        yield from _read_object(source, wanted)
        return
    with _readable(Path(source)):
        if Path(source).is_dir():
            yield from _read_folder(Path(source), wanted)
        columns: set[str] = set()
        for number, path in enumerate(find_files(source)):
            for chunk in read_rows(path, wanted, number):
                columns = columns or set(chunk.columns)
                # Ids that some files have and others lack would be row numbers in part.
                if columns != set(chunk.columns):
                    raise DataError(f"{path} has other columns than the files before it; make them the same")
                yield chunk


# --- files ---------------------------------------------------------------------------------------


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    reason = ""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
    if reason:
        raise DataError(f"{path} cannot be read: {reason}")


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DataError(_describe_missing(path))
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: unknown kind of file {suffix!r}; known are {', '.join(SUFFIXES)} "
            "and a Hugging Face data set folder"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")


def _describe_missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist, nor does its folder {folder}"
    near = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=1)
    where = "" if path.is_absolute() else f" in {Path.cwd()}, where this command was given"
    return f"{path} does not exist{where}" + (f"; did you mean {folder / near[0]}?" if near else "")


# --- folders -------------------------------------------------------------------------------------


def _read_folder(path: Path, wanted: Wanted) -> Iterator[Chunk]:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(item.name for item in path.iterdir() if (item / "state.json").is_file())
        named = splits[0] if splits else "train"
        raise DataError(
            f"{path} holds several splits ({', '.join(splits) or 'none found'}); name one: {path / named}"
        )
    if not (path / "state.json").is_file():
        files = sorted(item.name for item in path.iterdir() if item.suffix.lower() in SUFFIXES)
        known = f"; name a file in it: {', '.join(files[:5])}" if files else ""
        raise DataError(f"{path} is a folder, but no Hugging Face data set made by save_to_disk{known}")
    yield from _read_hugging_face(path, wanted)


def _read_hugging_face(path: Path, wanted: Wanted) -> Iterator[Chunk]:
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
    columns = wanted.among(data.column_names)
    # Arrow format resolves the index mapping of a shuffled or filtered data set.
    table = data.select_columns(columns).with_format("arrow")
    for start in range(0, len(table), CHUNK_ROWS):
        part = _to_columns(table[start : start + CHUNK_ROWS])
        for name in columns:
            feature = data.features[name]
            if isinstance(feature, datasets.ClassLabel):
                part[name] = [_class_name(feature.names, value) for value in part[name]]
        yield Chunk(columns=part)


def _class_name(names: Sequence[str], value: object) -> str | None:
    # Hugging Face writes -1 where a class is not known.
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


# --- objects in memory ---------------------------------------------------------------------------


def _read_object(source: object, wanted: Wanted) -> Iterator[Chunk]:
    import pyarrow as pa

    # Without pandas imported nothing can be a DataFrame.
    pandas = sys.modules.get("pandas")
    if isinstance(source, pa.Table):
        check_distinct(source.column_names)
        table = source.select(wanted.among(source.column_names))
        for start in range(0, len(table), CHUNK_ROWS):
            yield Chunk(columns=_to_columns(table.slice(start, CHUNK_ROWS)))
    elif pandas is not None and isinstance(source, pandas.DataFrame):
        yield Chunk(columns=_read_frame(source, wanted))
    else:
        raise DataError(
            f"cannot read data from a {type(source).__name__}; give a path, a pandas DataFrame or a pyarrow "
            "Table"
        )


def _read_frame(frame: "pd.DataFrame", wanted: Wanted) -> Columns:
    names = [str(name) for name in frame.columns]
    check_distinct(names)
    return {name: _read_series(name, frame.iloc[:, names.index(name)]) for name in wanted.among(names)}


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
