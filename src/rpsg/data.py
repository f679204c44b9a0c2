"""Private data in, released rows out.

`read_corpus` turns a file, folder, DataFrame or table into a `PrivateCorpus` or says in one message why
it cannot. Row numbers in messages count from 1, without a header and without blank lines.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from rpsg.errors import ConfigError, DataError
from rpsg.readers import Source, find_files, read_chunks
from rpsg.reading import Gathered, Roles
from rpsg.stored import TextFile, take, units_of
from rpsg.types import PrivateCorpus
from rpsg.writers import to_table, write_rows

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

# Larger files keep their texts.
IN_MEMORY_BYTES = 2**28
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
    or blank in a row is absent from the record's labels. Texts of more than 256 MiB of files stay in their
    files, which must not change then, and are read when they are needed.

    Args:
        source: path of a csv, tsv, jsonl or parquet file, a pattern such as `posts/*.csv` of several, or path
            of a Hugging Face data set folder; a pandas DataFrame; a pyarrow Table.
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
    roles = Roles(text=text_column, labels=tuple(label_columns), unit=unit_column, id=id_column)
    roles.check()
    paths = find_files(source)
    is_large = sum(path.stat().st_size for path in paths) > IN_MEMORY_BYTES
    gathered = Gathered(
        roles=roles,
        min_words=min_words,
        files=tuple(TextFile.of(path, text_column) for path in paths) if is_large else (),
    )
    for chunk in read_chunks(source, roles.wanted()):
        gathered.add(chunk)
    return gathered.finish()


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
    units = units_of(corpus.records)
    sizes = Counter(units)
    target = min(share * len(corpus), at_most)
    taken: set[str] = set()
    n_taken = 0
    for unit in sorted(sizes, key=lambda unit: hashlib.blake2b(unit.encode(), key=key).digest()):
        nearer = sizes[unit] <= 2 * (target - n_taken)
        if nearer and n_taken + sizes[unit] <= at_most:
            taken.add(unit)
            n_taken += sizes[unit]
    pool = take(corpus.records, [i for i, unit in enumerate(units) if unit not in taken])
    held_out = take(corpus.records, [i for i, unit in enumerate(units) if unit in taken])
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
