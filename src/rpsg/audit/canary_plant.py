"""Puts canaries into a copy of the data: planted file, its mark, and the secrets file."""

import json
import os
import random
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rpsg.audit.canary import Canary, Kind, Secrets, check_plan, to_json
from rpsg.audit.canary_mark import is_planted, make_mark, mark_path, remember
from rpsg.audit.canary_texts import STYLES, TextMaker
from rpsg.audit.poisoning import check_poisons, craft_poisons
from rpsg.data import read_corpus
from rpsg.errors import ConfigError, DataError
from rpsg.readers import read_chunks
from rpsg.reading import DEFAULT_ID_COLUMN
from rpsg.row_files import Columns, Wanted
from rpsg.text import words_alone, words_of
from rpsg.types import PrivateCorpus
from rpsg.writers import write_rows

if TYPE_CHECKING:
    import pyarrow as pa

# Gives so many public texts.
PublicTexts = Callable[[int], Sequence[str]]
_FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which column of the data is what; as in the run's configuration."""

    text: str = "text"
    labels: tuple[str, ...] = ()
    unit: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planting:
    """What to plant where.

    Attributes:
        source: the data.
        output: the planted copy; csv, jsonl or parquet.
        secrets: the secrets file.
        n_canaries: coins to throw.
        kinds: evenly among the canaries.
        repetitions: records a canary, evenly among the canaries.
        style: of fact statements.
        roles: columns.
        n_poisons: crafted records that aim at some of the canaries; 0 for none.
    """

    source: Path
    output: Path
    secrets: Path
    n_canaries: int
    kinds: tuple[Kind, ...]
    repetitions: tuple[int, ...]
    style: str
    roles: Roles
    n_poisons: int = 0


def read_data(planting: Planting) -> PrivateCorpus:
    """Reads the data and refuses what cannot be planted, before a model is asked for anything.

    Raises:
        ConfigError: a file exists, or the plan is out of range.
        DataError: the data cannot be used, or hold canaries already.
    """
    if planting.output.suffix not in _FORMATS:
        raise ConfigError(f"{planting.output}: the planted file is one of {', '.join(_FORMATS)}")
    if planting.style not in STYLES:
        raise ConfigError(f"there are no facts for {planting.style!r}; use one of {', '.join(STYLES)}")
    paths = (planting.output, planting.secrets, mark_path(planting.output))
    # However they are spelt: the planted file would be written over the coins.
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(
            f"the planted file, its mark ({paths[2].name}) and the secrets file must be three files"
        )
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} exists and is never overwritten; choose another name")
        if not path.parent.is_dir():
            raise ConfigError(f"there is no folder {path.parent}")
    roles = planting.roles
    corpus = read_corpus(
        planting.source,
        text_column=roles.text,
        label_columns=roles.labels,
        unit_column=roles.unit,
        id_column=roles.id,
        min_words=1,
    )
    check_poisons(planting.n_poisons)
    check_plan(planting.n_canaries, planting.repetitions, len(corpus), planting.n_poisons)
    if is_planted(corpus, planting.source):
        raise DataError(f"{planting.source} holds planted canaries already; plant into the clean data")
    return corpus


def plant(
    planting: Planting,
    corpus: PrivateCorpus,
    public: PublicTexts,
    *,
    chance: random.Random | None = None,
) -> Secrets:
    """Makes canaries, throws a coin for each, and writes secrets, mark and planted file.

    Args:
        planting: what to plant.
        corpus: the data, from `read_data`.
        public: gives public prose; no private text is shown to it.
        chance: where every draw comes from; the system's secure source unless a test gives another.

    Returns:
        The secrets; nothing of them may be shown.

    Raises:
        ConfigError: a file appeared meanwhile.
        DataError: the public texts are too few or the data's own, or the rows cannot be written.
    """
    chance = chance or secrets.SystemRandom()
    found = _make(planting, corpus, public, chance)
    columns = _read_columns(planting)
    rows = _insert(columns, found, planting.roles, corpus, chance)
    mark = make_mark([*(c.text for c in found.canaries), *(p.text for p in found.poisons)])
    written: list[Path] = []
    try:
        # The secrets first: planted data without them would be spoilt for nothing.
        for path, content in ((planting.secrets, to_json(found)), (mark_path(planting.output), mark)):
            _write_new(path, content)
            written.append(path)
        written.append(remember(mark))
        _write_rows(rows, planting.output)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return found


def _make(planting: Planting, corpus: PrivateCorpus, public: PublicTexts, chance: random.Random) -> Secrets:
    maker = TextMaker(
        public=_check_public(public(planting.n_canaries), corpus),
        style=planting.style,
        avoid={word for record in corpus.records for word in words_of(record.text)},
        chance=chance,
    )
    known_units = [record.unit_id for record in corpus.records]
    units = _new_keys(known_units, planting.n_canaries + planting.n_poisons, chance)
    if not corpus.has_units:
        units = [""] * len(units)
    canaries = []
    for number in range(planting.n_canaries):
        # Kinds in turn, and within a kind repetitions in turn: every pair is as frequent.
        kind = planting.kinds[number % len(planting.kinds)]
        text, fact = maker.make(kind)
        donor = chance.choice(corpus.records)
        canaries.append(
            Canary(
                canary_id=f"{chance.getrandbits(64):016x}",
                kind=kind,
                text=text,
                labels=dict(donor.labels),
                n_rep=planting.repetitions[number // len(planting.kinds) % len(planting.repetitions)],
                unit_id=units[number],
                fact=fact,
                is_in=chance.getrandbits(1) == 1,
            )
        )
    return Secrets(
        canaries=tuple(canaries),
        has_units=corpus.has_units,
        # Each from an attacker's account of its own: the worst case for a limit per person.
        poisons=craft_poisons(canaries, units[planting.n_canaries :], chance),
    )


def _check_public(public: Sequence[str], corpus: PrivateCorpus) -> Sequence[str]:
    own = {words_alone(record.text) for record in corpus.records}
    n_own = sum(words_alone(text) in own for text in public)
    if n_own:
        raise DataError(
            f"{n_own} of {len(public)} public texts are texts of the data; a canary must quote nobody: bring "
            "texts of other people with --public"
        )
    return public


# --- rows -----------------------------------------------------------------------------------------


def _read_columns(planting: Planting) -> Columns:
    """Reads the columns that a run reads; others would be blank in every canary, and tell which these are."""
    roles = planting.roles
    named = (roles.text, *roles.labels, roles.unit, roles.id)
    required = tuple(dict.fromkeys(name for name in named if name is not None))
    columns: Columns = {}
    for chunk in read_chunks(planting.source, Wanted(required=required, optional=(DEFAULT_ID_COLUMN,))):
        for name, values in chunk.columns.items():
            columns.setdefault(name, []).extend(values)
    return {name: values for name, values in columns.items() if name in required or any(values)}


def _insert(
    columns: Columns, found: Secrets, roles: Roles, corpus: PrivateCorpus, chance: random.Random
) -> Columns:
    """Returns the columns with a row for every record that is put in, at random places."""
    names = list(columns)
    rows: list[list[object]] = [list(row) for row in zip(*columns.values(), strict=True)]
    planted = [
        (canary.text, canary.labels, canary.unit_id)
        for canary in found.canaries
        if canary.is_in
        for _ in range(canary.n_rep)
    ]
    labels = {canary.canary_id: canary.labels for canary in found.canaries}
    planted += [(item.text, labels[item.canary_id], item.unit_id) for item in found.poisons]
    id_column = roles.id or (
        DEFAULT_ID_COLUMN
        if DEFAULT_ID_COLUMN in columns and DEFAULT_ID_COLUMN not in {roles.text, roles.unit}
        else None
    )
    ids = _new_keys([record.record_id for record in corpus.records], len(planted), chance)
    for (text, own_labels, unit), key in zip(planted, ids, strict=True):
        values: dict[str, object] = {roles.text: text, **own_labels}
        if roles.unit is not None:
            values[roles.unit] = unit
        if id_column is not None:
            values[id_column] = key
        row = [_like(values.get(name), columns[name]) for name in names]
        rows.insert(chance.randint(0, len(rows)), row)
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _new_keys(known: Sequence[str], n: int, chance: random.Random) -> list[str]:
    """Returns fresh names in the manner of those known: the next whole numbers, or random ones."""
    if all(key.isdecimal() for key in known):
        first = max(map(int, known)) + 1
        return [str(first + i) for i in chance.sample(range(n), n)]
    return [f"{chance.getrandbits(64):016x}" for _ in range(n)]


def _like(value: object, others: Sequence[object]) -> object:
    # A column of numbers stays one; what a canary does not have is blank.
    if isinstance(value, str) and value.isdecimal() and any(type(other) is int for other in others):
        return int(value)
    return value


# --- files ----------------------------------------------------------------------------------------


def _write_new(path: Path, content: str) -> None:
    """Writes a file that only its owner can read, never over another."""
    try:
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConfigError(f"{path} exists and is never overwritten; choose another name") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def _write_rows(columns: Columns, path: Path) -> None:
    # Written where nobody else can look, then moved.
    with tempfile.TemporaryDirectory(prefix=".planting-", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        if path.suffix == ".jsonl":
            rows = zip(*columns.values(), strict=True)
            lines = (json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in rows)
            whole.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            write_rows(_to_table(columns), whole)
        whole.chmod(0o600)
        whole.replace(path)


def _to_table(columns: Columns) -> "pa.Table":
    import pyarrow as pa

    try:
        return pa.table(columns)
    except (pa.ArrowException, TypeError, ValueError):
        pass
    raise DataError("a column holds values of different kinds; write a planted file that ends in .jsonl")
