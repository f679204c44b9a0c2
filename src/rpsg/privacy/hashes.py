"""The hashes of a ledger: of its chain of entries, and of what a release was begun for."""

import hashlib
import json
from collections.abc import Iterable, Sequence


def claim_hash(record_ids: Iterable[str]) -> str:
    """Returns the hash of a set of records."""
    return hashlib.sha256(json.dumps(sorted(record_ids)).encode()).hexdigest()


def texts_hash(texts: Sequence[str]) -> str:
    """Returns the hash of texts in their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def chain_hash(last: str, entry_id: int, label: str, kind: str, body: str, result: str | None) -> str:
    """Returns the hash of an entry, in which that of the entry before goes."""
    own = hashlib.sha256((result or "").encode()).hexdigest()
    text = json.dumps([last, entry_id, label, kind, body, result is None, own])
    return hashlib.sha256(text.encode()).hexdigest()
