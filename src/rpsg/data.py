"""Private data in, released rows out.

`read_corpus` turns a file, folder, DataFrame or table into a `PrivateCorpus` or says in one message why
it cannot. Row numbers in messages count from 1, without a header and without blank lines.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from rpsg.errors import ConfigError, DataError
from rpsg.readers import MAX_ROW_BYTES, Columns, Source, read_columns
from rpsg.types import Labels, PrivateCorpus, PrivateRecord
from rpsg.writers import RELEASED_COLUMNS, to_table, write_rows

__all__ = [
    "check_language",
    "fingerprint",
    "read_corpus",
    "sample_path",
    "sample_seeds",
    "split_calibration",
    "to_table",
    "write_rows",
]

DEFAULT_ID_COLUMN = "id"
# Below this a label column may well have a value of its own in most rows.
_MIN_ROWS_TO_JUDGE_LABELS = 20
_LANGUAGE_SAMPLE = 500
_MIN_LANGUAGE_SHARE = 0.5


# --- reading -------------------------------------------------------------------------------------


def read_corpus(
    source: Source,
    *,
    text_column: str = "text",
    label_columns: Sequence[str] = (),
    unit_column: str | None = None,
    id_column: str | None = None,
    min_words: int = 5,
) -> PrivateCorpus:
    """Reads a private data set.

    A text is kept as it is, but for white space around it and Windows line ends. A label that is missing
    or blank in a row is absent from the record's labels.

    Args:
        source: path of a csv, tsv, jsonl or parquet file or of a Hugging Face data set folder; a pandas
            DataFrame; a pyarrow Table.
        text_column: the texts.
        label_columns: what to carry over to the synthetic texts.
        unit_column: the person or thing to protect; without it every row is its own unit.
        id_column: default: "id" where there is such a column, else the row's number.
        min_words: shorter texts are skipped and counted.

    Raises:
        ConfigError: a column does not exist or cannot be used as named.
        DataError: the data cannot be used as they are.
        MissingExtra: a Hugging Face folder without the package `datasets`.
    """
    roles = _Roles(text=text_column, labels=tuple(label_columns), unit=unit_column, id=id_column)
    roles.check()
    columns = read_columns(source, roles.choose)
    texts, skipped = _usable_texts(columns[text_column], text_column, min_words=min_words)
    rows = list(texts)
    ids = _read_ids(columns, roles, rows)
    units = _read_units(columns, roles, rows) or ids
    labels = _read_labels(columns, roles, rows)
    records = tuple(
        PrivateRecord(record_id=ids[i], unit_id=units[i], text=texts[row], labels=labels[i])
        for i, row in enumerate(rows)
    )
    return PrivateCorpus(
        records=records,
        label_columns=roles.labels,
        has_units=unit_column is not None,
        skipped=skipped,
        warnings=_warn(records, has_units=unit_column is not None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roles:
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

    def choose(self, names: Sequence[str]) -> list[str]:
        """Returns the columns to read, each once."""
        default = DEFAULT_ID_COLUMN if DEFAULT_ID_COLUMN in names else None
        wanted = [self.text, *self.labels, self.unit, self.id or default]
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def id_column(self, columns: Columns) -> str | None:
        """Returns the column the ids come from, None for row numbers."""
        if self.id is not None:
            return self.id
        # A column "id" that names units or holds the texts is not the rows' id.
        is_free = DEFAULT_ID_COLUMN not in (self.text, self.unit)
        return DEFAULT_ID_COLUMN if is_free and DEFAULT_ID_COLUMN in columns else None


def _usable_texts(
    values: Sequence[object], column: str, *, min_words: int
) -> tuple[dict[int, str], dict[str, int]]:
    # Returns row position to text, and reason to number of rows left out.
    texts: dict[int, str] = {}
    skipped = {"empty": 0, "too short": 0}
    for row, value in enumerate(values):
        if value is None or _is_nan(value):
            skipped["empty"] += 1
            continue
        if not isinstance(value, str):
            raise DataError(
                f"column {column!r} is not text: row {row + 1} holds a {type(value).__name__}; "
                "name the column with the texts"
            )
        _check_characters(value, column=column, row=row)
        text = value.replace("\r\n", "\n").strip()
        if text and len(text.split()) >= min_words:
            texts[row] = text
        else:
            skipped["too short" if text else "empty"] += 1
    if not texts:
        raise DataError(
            f"column {column!r} has no usable text: of {len(values)} rows {skipped['empty']} are empty and "
            f"{skipped['too short']} have fewer than min_words = {min_words} words"
        )
    return texts, skipped


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


def _read_ids(columns: Columns, roles: _Roles, rows: Sequence[int]) -> list[str]:
    name = roles.id_column(columns)
    if name is None:
        return [f"row-{row + 1}" for row in rows]
    ids = _read_keys(columns[name], rows, column=name, role="id")
    first: dict[str, int] = {}
    repeats = [
        (row, first[key]) for row, key in zip(rows, ids, strict=True) if first.setdefault(key, row) != row
    ]
    if repeats:
        row, before = repeats[0]
        raise DataError(
            f"id column {name!r}: {len(repeats)} rows repeat the id of an earlier row, first row {row + 1} "
            f"that of row {before + 1}; make ids unique, or, if it names persons, give it as the unit column"
        )
    return ids


def _read_units(columns: Columns, roles: _Roles, rows: Sequence[int]) -> list[str]:
    if roles.unit is None:
        return []
    return _read_keys(columns[roles.unit], rows, column=roles.unit, role="unit")


def _read_keys(values: Sequence[object], rows: Sequence[int], *, column: str, role: str) -> list[str]:
    keys = [_to_key(values[row], column=column, row=row) for row in rows]
    blank = [row for row, key in zip(rows, keys, strict=True) if not key]
    if blank:
        raise DataError(
            f"{role} column {column!r} is blank in {len(blank)} rows, first in row {blank[0] + 1}; "
            f"every row with a text needs its {role}"
        )
    return keys


def _read_labels(columns: Columns, roles: _Roles, rows: Sequence[int]) -> list[Labels]:
    labels: list[dict[str, str]] = [{} for _ in rows]
    for name in roles.labels:
        values = columns[name]
        keys = [_to_key(values[row], column=name, row=row) for row in rows]
        _check_label_values(name, keys)
        for label, key in zip(labels, keys, strict=True):
            if key:
                label[name] = key
    return list(labels)


def _check_label_values(name: str, keys: Sequence[str]) -> None:
    n_values = len(set(keys) - {""})
    if n_values == 0:
        raise DataError(f"label column {name!r} is blank in every row; leave it out")
    if len(keys) >= _MIN_ROWS_TO_JUDGE_LABELS and n_values > len(keys) / 2:
        raise DataError(
            f"label column {name!r} has {n_values} different values in {len(keys)} rows, more than half as "
            "many; labels can be released, so many rows must share one: leave it out or group it"
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


def _warn(records: Sequence[PrivateRecord], *, has_units: bool) -> tuple[str, ...]:
    n_repeats = len(records) - len({record.text for record in records})
    if has_units or not n_repeats:
        return ()
    return (
        f"{n_repeats} rows repeat the text of another row word for word. Without a unit column every row "
        "counts as a unit of its own, so whoever wrote several rows is protected less than the numbers "
        "say: remove repeated rows, or name a unit column.",
    )


def check_language(
    corpus: PrivateCorpus, detect: Callable[[Sequence[str]], Sequence[str]], supported: frozenset[str]
) -> None:
    """Refuses data that are mostly in a language the models do not write.

    Args:
        corpus: the data.
        detect: one ISO 639-1 code a text, "" where it cannot tell.
        supported: codes of the languages that the models write.

    Raises:
        DataError: of up to 500 texts, spread evenly, whose language was found, fewer than half are in a
            supported one.
    """
    step = max(1, -(-len(corpus) // _LANGUAGE_SAMPLE))
    codes = Counter(code for code in detect([record.text for record in corpus.records[::step]]) if code)
    n_found = codes.total()
    n_supported = sum(codes[code] for code in supported)
    if n_found == 0 or n_supported / n_found >= _MIN_LANGUAGE_SHARE:
        return
    other, count = next(item for item in codes.most_common() if item[0] not in supported)
    raise DataError(
        f"{n_supported / n_found:.0%} of the texts are in a language that the models write "
        f"({', '.join(sorted(supported))}); {count / n_found:.0%} are in {other!r}; name models for that "
        f"language and set models.languages to [{other}]"
    )


# --- parts and order -----------------------------------------------------------------------------


def split_calibration(
    corpus: PrivateCorpus, *, share: float = 0.2, at_most: int = 500, key: bytes
) -> tuple[PrivateCorpus, PrivateCorpus]:
    """Takes whole units off to calibrate filters; these never seed.

    Units are taken in the order of a keyed hash of their id while that brings the number of records nearer
    to `share` of all, so the parts depend on the key and the units, not on the order of rows.

    Args:
        corpus: the data.
        share: of the records, in (0, 1).
        at_most: largest number of records taken.
        key: of the hash, at most 64 bytes; it only has to differ from run to run.

    Returns:
        The pool of seeds and the calibration part, each in input order. `skipped` and `warnings` of both
        describe the whole.
    """
    sizes = Counter(record.unit_id for record in corpus.records)
    target = min(share * len(corpus), at_most)
    taken: set[str] = set()
    n_taken = 0
    for unit in sorted(sizes, key=lambda unit: hashlib.blake2b(unit.encode(), key=key).digest()):
        nearer = sizes[unit] <= 2 * (target - n_taken)
        if nearer and n_taken + sizes[unit] <= at_most:
            taken.add(unit)
            n_taken += sizes[unit]
    pool = tuple(record for record in corpus.records if record.unit_id not in taken)
    held_out = tuple(record for record in corpus.records if record.unit_id in taken)
    return replace(corpus, records=pool), replace(corpus, records=held_out)


def sample_seeds(pool: PrivateCorpus, rng: np.random.Generator) -> list[str]:
    """Orders all records for seeding: the first n are the seeds of a run that needs n.

    Every record is equally likely to be among the first n. Records of one unit stand together. Where every
    unit has one record and there are labels, the first n hold each combination of labels in its share of
    the data, to within two records; otherwise they do so in expectation.

    Returns:
        Every record id of the pool once.
    """
    by_unit: dict[str, list[str]] = {}
    for record in pool.records:
        by_unit.setdefault(record.unit_id, []).append(record.record_id)
    if not pool.label_columns or len(by_unit) < len(pool):
        units = list(by_unit.values())
        return [record_id for i in rng.permutation(len(units)) for record_id in units[i]]
    by_labels: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for record in pool.records:
        by_labels.setdefault(tuple(sorted(record.labels.items())), []).append(record.record_id)
    return _interleave(list(by_labels.values()), rng)


def _interleave(groups: Sequence[Sequence[str]], rng: np.random.Generator) -> list[str]:
    # A group of m records puts one at a random place in each m-th of the line from 0 to 1: at the same
    # offset in every m-th, so that any cut holds the group's share. Offsets of different groups are spread
    # evenly, so that rounding up in one group meets rounding down in another.
    n_groups = len(groups)
    offsets = (rng.permutation(n_groups) + rng.random(n_groups)) / max(n_groups, 1)
    placed: list[tuple[float, str]] = []
    for group, offset in zip(groups, offsets, strict=True):
        places = (np.arange(len(group)) + offset) / len(group)
        placed.extend(
            (float(place), group[i]) for place, i in zip(places, rng.permutation(len(group)), strict=True)
        )
    placed.sort(key=lambda item: item[0])
    return [record_id for _, record_id in placed]


def fingerprint(corpus: PrivateCorpus) -> str:
    """Returns a SHA-256 of ids, units, texts and labels, in order.

    It tells whether two data sets are the same, so it is private: keep it in `private/`.
    """
    digest = hashlib.sha256(json.dumps([corpus.label_columns, corpus.has_units]).encode())
    for record in corpus.records:
        row = [record.record_id, record.unit_id, record.text, sorted(record.labels.items())]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


# --- samples -------------------------------------------------------------------------------------


def sample_path(name: str) -> Path:
    """Returns the path of a sample data set that comes with the package, for example "posts_train.jsonl".

    Raises:
        ConfigError: there is none of that name.
    """
    folder = Path(str(files("rpsg") / "samples"))
    names = sorted(item.name for item in folder.glob("*.jsonl"))
    if name not in names:
        raise ConfigError(f"there is no sample {name!r}; samples are: {', '.join(names)}")
    return folder / name
