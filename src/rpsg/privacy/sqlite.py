"""Transactions of the files that privacy rests on."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from rpsg.errors import RunDirError


@contextmanager
def transaction(db: sqlite3.Connection, *, what: str, otherwise: str) -> Iterator[None]:
    """Holds the write lock for a block and commits it; whatever ends it early takes all of it back.

    Args:
        db: a connection without implicit transactions.
        what: the file, for the message.
        otherwise: what holds when it could not be written.

    Raises:
        RunDirError: the file cannot be written, for example because the disk is full.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
    except sqlite3.Error as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise RunDirError(f"cannot write {what} ({error}); {otherwise}") from None
