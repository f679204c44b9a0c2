"""The mark of data with planted canaries: it says that there are some, not which.

It is written beside the planted file and into the user's state folder. It holds keyed hashes of every
canary's text, whether it was put in or left out, so it says nothing of the coins; a copy of the data under
another name or in another format is known by the texts it holds.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rpsg.config import RunConfig
from rpsg.errors import RunDirError
from rpsg.privacy.state import private_folder
from rpsg.rundir import write_text
from rpsg.text import words_of
from rpsg.types import PrivateCorpus

SUFFIX = ".canaries"
_NOTE = "the file beside this one holds planted canaries: made-up records for an audit, not to be published"


def mark_path(data: Path) -> Path:
    """Returns where the mark of a data file is."""
    return data.with_name(data.name + SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    key: bytes
    tags: frozenset[str]

    def is_in(self, texts: Sequence[bytes]) -> bool:
        return any(_tag(self.key, text) in self.tags for text in texts)


def make_mark(texts: Sequence[str]) -> str:
    """Returns the content of a mark, from the texts of all canaries."""
    key = secrets.token_bytes(32)
    # Sorted, so that the order of canaries is lost.
    tags = sorted(_tag(key, _words(text)) for text in texts)
    return json.dumps({"contains_canaries": True, "note": _NOTE, "key": key.hex(), "tags": tags}) + "\n"


def remember(mark: str) -> Path:
    """Keeps a mark in the user's state folder; returns the file."""
    path = private_folder("canaries") / f"{secrets.token_hex(8)}.json"
    write_text(path, mark)
    path.chmod(0o600)
    return path


def is_planted(corpus: PrivateCorpus, source: Path | None = None) -> bool:
    """Tells whether data hold planted canaries.

    Args:
        corpus: the data.
        source: the file they were read from; a mark beside it counts, whatever the texts say.

    Raises:
        RunDirError: a mark cannot be read, so nothing can be said.
    """
    if source is not None and mark_path(source).exists():
        return True
    marks = list(_known_marks(private_folder("canaries").glob("*.json")))
    texts = [_words(record.text) for record in corpus.records] if marks else []
    return any(mark.is_in(texts) for mark in marks)


def without_planted(corpus: PrivateCorpus, source: Path) -> PrivateCorpus:
    """Returns data without the records that a mark names: planted ones, whatever their coins.

    Raises:
        RunDirError: a mark cannot be read.
    """
    beside = [path for path in [mark_path(source)] if path.exists()]
    marks = list(_known_marks([*private_folder("canaries").glob("*.json"), *beside]))
    kept = tuple(
        record for record in corpus.records if not any(mark.is_in([_words(record.text)]) for mark in marks)
    )
    return replace(corpus, records=kept)


def holds_canaries(config: RunConfig, corpus: PrivateCorpus) -> bool:
    """Tells whether a run's data hold planted canaries."""
    return is_planted(corpus, Path(config.data.path) if config.data.path is not None else None)


def _known_marks(paths: Iterable[Path]) -> Iterable[_Mark]:
    for path in sorted(paths):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            yield _Mark(key=bytes.fromhex(values["key"]), tags=frozenset(values["tags"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise RunDirError(
                f"the mark {path} of planted data cannot be read, so no run can say that it holds no canary; "
                "restore it, or remove it if you know that"
            ) from None


def _words(text: str) -> bytes:
    # Words alone: case, spaces and punctuation may change on the way through a spreadsheet.
    return " ".join(words_of(text)).encode()


def _tag(key: bytes, words: bytes) -> str:
    return hashlib.blake2b(words, key=key, digest_size=16).hexdigest()
