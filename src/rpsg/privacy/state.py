"""What is kept outside run folders, in the user's state folder: chain heads and data budgets.

A run folder can be copied back from a backup; its ledger would then forget what was released since. The
head of every ledger's chain is therefore kept here too.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rpsg.errors import PrivacyError, RunDirError
from rpsg.rundir import write_json


def state_dir() -> Path:
    """Returns the user's state folder for this program; `XDG_STATE_HOME` moves it."""
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    # A relative path is not valid there, and would be another folder in every directory.
    return (base if base.is_absolute() else Path.home() / ".local/state") / "rpsg"


def private_folder(name: str) -> Path:
    """Returns a folder of the state folder that only its owner can read, made when missing.

    Raises:
        RunDirError: it cannot be made.
    """
    folder = state_dir() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise RunDirError(
            f"cannot use the state folder {folder} ({error.strerror}); set XDG_STATE_HOME to a folder that "
            "this user can write to and that stays between runs"
        ) from None
    return folder


def check_head(name: str, ledger_id: str, hashes: Sequence[str]) -> None:
    """Refuses a ledger that lacks entries which this user has seen in it.

    Args:
        name: what the ledger belongs to, or its id where it belongs to nothing.
        ledger_id: the ledger's random id.
        hashes: the hash of each of its entries, in order.

    Raises:
        PrivacyError: the ledger is shorter than it was, differs, or stands in place of another.
    """
    known = _read_head(name)
    if known is None:
        return
    known_id, n_known, last = known
    if known_id != ledger_id:
        raise PrivacyError(
            "this run had another ledger, which is gone: with a new one everything would be drawn again; "
            "restore private/ledger.sqlite, or start a new run folder"
        )
    if len(hashes) < n_known:
        raise PrivacyError(
            f"the ledger has {len(hashes)} entries and had {n_known}: it was cut or is an old copy, and "
            "would draw again what was already released; use the newest copy of the run folder"
        )
    if n_known and hashes[n_known - 1] != last:
        raise PrivacyError(
            "the ledger's entries are not those that were written before: it was edited, or another copy of "
            "this run went on; use the copy that went on"
        )


def keep_head(name: str, ledger_id: str, hashes: Sequence[str]) -> None:
    """Remembers a ledger's length and last hash.

    Raises:
        PrivacyError: another copy of the ledger went on in the meantime.
        RunDirError: the state folder cannot be written.
    """
    path = _head_path(name)
    try:
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = _read_head(name)
            if known is not None and known[1] >= len(hashes):
                check_head(name, ledger_id, hashes)
                return
            write_json(
                path, {"ledger": ledger_id, "entries": len(hashes), "hash": hashes[-1] if hashes else ""}
            )
            path.chmod(0o600)
    except OSError as error:
        raise RunDirError(f"cannot keep the ledger's head in {path.parent}: {error.strerror}") from None


def _head_path(name: str) -> Path:
    return private_folder("heads") / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _read_head(name: str) -> tuple[str, int, str] | None:
    path = _head_path(name)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return str(known["ledger"]), int(known["entries"]), str(known["hash"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise PrivacyError(f"the head {path} is damaged; nothing can be said of the ledger's age") from None
