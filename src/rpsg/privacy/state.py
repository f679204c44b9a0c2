"""What is kept outside run folders, in the user's state folder: chain heads and data budgets.

A run folder can be copied back from a backup; its ledger would then forget what was released since. The
head of every ledger's chain is therefore kept here too.
"""

import json
import os
from pathlib import Path

from rpsg.errors import PrivacyError, RunDirError
from rpsg.rundir import write_json


def state_dir() -> Path:
    """Returns the user's state folder for this program; `XDG_STATE_HOME` moves it."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local/state") / "rpsg"


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


def check_head(ledger_id: str, hashes: list[str]) -> None:
    """Refuses a ledger that lacks entries which this user has seen in it.

    Args:
        ledger_id: the ledger's random id.
        hashes: the hash of each of its entries, in order.

    Raises:
        PrivacyError: the ledger is shorter than it was, or differs.
    """
    path = private_folder("heads") / f"{ledger_id}.json"
    if not path.exists():
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    n_known = int(known["entries"])
    if len(hashes) < n_known:
        raise PrivacyError(
            f"the ledger has {len(hashes)} entries and had {n_known}: it was cut or is an old copy, and "
            "would draw again what was already released; use the newest copy of the run folder"
        )
    if n_known and hashes[n_known - 1] != known["hash"]:
        raise PrivacyError(
            "the ledger's entries are not those that were written before: it was edited, or another copy of "
            "this run went on; use the copy that went on"
        )


def keep_head(ledger_id: str, *, entries: int, last_hash: str) -> None:
    """Remembers a ledger's length and last hash, never a step back."""
    path = private_folder("heads") / f"{ledger_id}.json"
    if path.exists() and int(json.loads(path.read_text(encoding="utf-8"))["entries"]) >= entries:
        return
    try:
        write_json(path, {"entries": entries, "hash": last_hash})
        path.chmod(0o600)
    except OSError as error:
        raise RunDirError(f"cannot keep the ledger's head in {path.parent}: {error.strerror}") from None
