"""Released rows out: one table, three kinds of file."""

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from rpsg.errors import ConfigError, PrivateDataError, RunDirError
from rpsg.text import JOINERS, UNSEEN
from rpsg.types import SyntheticText

if TYPE_CHECKING:
    import pyarrow as pa

# A spreadsheet program computes a cell that begins so, also with its own wide forms of these signs. It skips
# white space before them, and characters that nobody sees.
_FORMULA = re.compile(rf"(?:[\s\0]|{UNSEEN.pattern}|{JOINERS.pattern})*[=+\-@\t\r|%＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?%?")
# Columns of a released row beside the labels.
RELEASED_COLUMNS = ("id", "text")


def check_released(rows: Sequence[SyntheticText]) -> None:
    """Refuses rows that are not released texts.

    Raises:
        PrivateDataError: a row is something else.
    """
    wrong = next((type(row).__name__ for row in rows if not isinstance(row, SyntheticText)), None)
    if wrong is not None:
        raise PrivateDataError(
            f"only released texts (SyntheticText) can be written, not {wrong}; pass it through Ledger.release"
        )


def to_table(rows: Sequence[SyntheticText], label_columns: Sequence[str]) -> "pa.Table":
    """Makes the released table: `id`, `text`, then the labels, all text; a missing label is null.

    Raises:
        PrivateDataError: a row is not a released text.
    """
    import pyarrow as pa

    check_released(rows)
    columns: dict[str, list[str | None]] = {
        "id": [row.text_id for row in rows],
        "text": [row.text for row in rows],
        **{name: [row.labels.get(name) for row in rows] for name in label_columns},
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def write_rows(table: "pa.Table", path: Path) -> None:
    """Writes a table as csv, jsonl or parquet, by suffix; the file appears whole or not at all.

    In csv every field is quoted, null is the empty field, and a cell that a spreadsheet program would take
    for a formula begins with an apostrophe; plain numbers do not. The other formats hold values as they are.

    Raises:
        PrivateDataError: something else than a table.
        ConfigError: another suffix.
        RunDirError: the file cannot be written, for example because the disk is full.
    """
    import pyarrow as pa

    if not isinstance(table, pa.Table):
        raise PrivateDataError(f"only a released table can be written, not {type(table).__name__}")
    writers: Mapping[str, Callable[[pa.Table, BinaryIO], None]] = {
        ".csv": _write_csv,
        ".jsonl": _write_json_lines,
        ".parquet": _write_parquet,
    }
    if path.suffix not in writers:
        raise ConfigError(f"cannot write {path.name}: the suffix must be one of {', '.join(writers)}")
    try:
        _write_whole(path, lambda file: writers[path.suffix](table, file))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RunDirError(f"cannot write {path}: {reason}; nothing was left behind") from None


def read_written(path: Path) -> list[dict[str, str | None]]:
    """Reads what `write_rows` wrote; a missing label is None. In csv, guarded cells stay guarded."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return cast("list[dict[str, str | None]]", pq.read_table(path).to_pylist())
    with path.open(encoding="utf-8", newline="") as file:
        # An empty field is a label that is missing.
        return [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]


def guard_formula(value: object) -> object:
    """Puts an apostrophe before what a spreadsheet program would take for a formula."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def _write_whole(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_csv(table: "pa.Table", file: BinaryIO) -> None:
    lines = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(lines, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow([guard_formula(name) for name in table.column_names])
    columns = ([guard_formula(value) for value in column.to_pylist()] for column in table.columns)
    writer.writerows(zip(*columns, strict=True))
    lines.flush()
    lines.detach()


def _write_json_lines(table: "pa.Table", file: BinaryIO) -> None:
    for row in table.to_pylist():
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _write_parquet(table: "pa.Table", file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, file)


def check_own_files(folder: Path, *, known_by: Mapping[str, set[str]], beside: Sequence[str] = ()) -> None:
    """Refuses a folder where writing would replace another tool's files.

    Args:
        folder: to write to; it need not exist.
        known_by: JSON file to the keys that tell that this program wrote it.
        beside: further files, ours only where one of those is.

    Raises:
        ConfigError: the folder is a file, cannot be made or written to, or holds such files.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder with -o")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        # Tried, not asked: some file systems let nobody make a file.
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"cannot write into {there} ({reason}); name another folder with -o") from None
    ours = [name for name, keys in known_by.items() if keys <= _keys_of(folder / name)]
    for name in (*known_by, *beside):
        if (folder / name).exists() and name not in ours and (name in known_by or not ours):
            raise ConfigError(
                f"{folder / name} is no file of rpsg and is not overwritten; name another folder with -o"
            )


def _keys_of(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return set(found) if isinstance(found, dict) else set()
