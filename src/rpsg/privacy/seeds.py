"""What a run's ledger knows of released texts: which they are, and, privately, what each was written from."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from rpsg.privacy.ledger import read_run
from rpsg.privacy.plain import NonPrivateTexts


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


def read_released(path: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Returns every text that was released, as it was: text id to text and labels.

    Raises:
        RunDirError: there is no ledger.
        PrivacyError: the chain is broken or older than it was.
    """
    read_run(path)
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT result FROM entries WHERE kind = 'release' AND label = 'texts'")
        return {
            row["text_id"]: (row["text"], row["labels"]) for (result,) in rows for row in json.loads(result)
        }
