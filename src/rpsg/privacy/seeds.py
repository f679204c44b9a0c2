"""What a run's ledger knows of released texts: which they are, and, privately, what each was written from."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rpsg.privacy.ledger import Ledger, read_run
from rpsg.privacy.plain import NonPrivateTexts
from rpsg.types import SyntheticText

_COLUMNS, _REJECTED = "columns", "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedTexts:
    """What a ledger released.

    Attributes:
        texts: every text, in the order that was drawn.
        label_columns: of their table, also those in which no text has a value.
        rejected: ids of the texts that a review took out, as it was last applied.
    """

    texts: tuple[SyntheticText, ...]
    label_columns: tuple[str, ...]
    rejected: frozenset[str]

    def without(self, rejected: Iterable[str]) -> list[SyntheticText]:
        """Returns the texts that are not among those rejected."""
        out = set(rejected)
        return [item for item in self.texts if item.text_id not in out]


def read_seeds(path: Path) -> dict[str, str]:
    """Returns the record that each released text was written from: text id to record id; private.

    Empty where texts were written from noisy keys, and so from no record.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the chain is broken or older than it was.
    """
    read_run(path)
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT body, result FROM entries WHERE kind = 'release' AND label = 'texts'")
        return {
            row["text_id"]: row["variant_id"].rsplit("/", 1)[0]
            for body, result in rows
            if json.loads(body)["mechanism"] == NonPrivateTexts.__name__
            for row in json.loads(result)
        }


def read_released(path: Path) -> ReleasedTexts:
    """Returns what was released, as it was.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the chain is broken or older than it was.
    """
    paid_by = next((line.line_id for line in read_run(path)[0] if line.label == "texts"), 0)
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT result FROM entries WHERE kind = 'release' AND label = 'texts'")
        found = [row for (result,) in rows for row in json.loads(result)]
    with Ledger.open(path) as ledger:
        columns, rejected = ledger.attested(_COLUMNS) or {}, ledger.attested(_REJECTED) or {}
    return ReleasedTexts(
        texts=tuple(
            SyntheticText(text_id=row["text_id"], text=row["text"], labels=row["labels"], paid_by=paid_by)
            for row in found
        ),
        label_columns=tuple(cast("list[str]", columns.get("names", []))),
        rejected=frozenset(cast("list[str]", rejected.get("ids", []))),
    )


def note_columns(ledger: Ledger, label_columns: Sequence[str]) -> None:
    """Puts the label columns of the released table into the chain."""
    ledger.attest({"names": list(label_columns)}, _COLUMNS)


def note_rejected(ledger: Ledger, ids: Iterable[str]) -> None:
    """Puts what a review takes out into the chain, before the release is written without it."""
    ledger.attest({"ids": sorted(ids)}, _REJECTED)
