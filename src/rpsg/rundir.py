"""The run folder: every file name on disk, atomic writes, done marks.

    <run>/  manifest.json  done/<step>
            private/   (0700) config.yaml ledger.sqlite calls.sqlite embeddings/ progress.json ...
            release/   synthetic.jsonl  privacy_card.json  privacy_card.md  README.md

Only `release/` is meant to leave the machine. A file appears under its name when it is complete.
"""

import fcntl
import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rpsg.changes import changed_fields, made_of, other_part
from rpsg.config import RunConfig
from rpsg.errors import PrivateDataError, RunDirError
from rpsg.staging import write_folder
from rpsg.types import SyntheticText

if TYPE_CHECKING:
    from rpsg.types import FloatArray


class RunDir:
    """One run on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = root / "private"
        self.release = root / "release"
        self.ledger = self.private / "ledger.sqlite"
        self.calls = self.private / "calls.sqlite"
        self.embeddings = self.private / "embeddings"
        self.config = self.private / "config.yaml"
        self.model = self.private / "model"
        self.manifest = root / "manifest.json"

    # --- creation ------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        root: Path,
        config: RunConfig,
        *,
        fingerprint: str,
        public: str = "",
        contains_canaries: bool = False,
    ) -> "RunDir":
        """Makes a run folder, or opens the one that the same configuration and data began.

        Args:
            root: the folder.
            config: the run's configuration.
            fingerprint: SHA-256 of the private data; kept in `private/` only.
            public: SHA-256 of the file of public topics and phrases; "" where none is used.
            contains_canaries: whether the data hold planted canaries; kept for good.

        Raises:
            RunDirError: the folder holds something else.
        """
        run = cls(root)
        if root.exists() and not root.is_dir():
            raise RunDirError(f"{root} is a file; name a folder with -o")
        parts = made_of(config, fingerprint=fingerprint, public=public)
        if run.manifest.exists():
            run._check_same(config, parts)
            run.check_not_purged()
            if contains_canaries and not run.contains_canaries:
                run._write_manifest(run.run_id, contains_canaries=True)
            return run
        if root.exists() and any(root.iterdir()) and not run._is_unfinished():
            raise RunDirError(f"{root} is not empty and holds no run; name a new folder with -o")
        try:
            run.private.mkdir(parents=True, mode=0o700, exist_ok=True)
            with run.working():
                if not run.manifest.exists():
                    run._begin(config, parts, contains_canaries=contains_canaries)
                    return run
        except OSError as error:
            raise RunDirError(f"cannot write to {root}: {error.strerror}") from None
        # Another process began it meanwhile.
        run._check_same(config, parts)
        return run

    def _begin(self, config: RunConfig, parts: Mapping[str, str], *, contains_canaries: bool) -> None:
        # Also where somebody made it beforehand, open to others.
        self.private.chmod(0o700)
        (self.root / "done").mkdir(exist_ok=True)
        write_text(self.config, config.to_yaml())
        write_json(self.private / "data.json", parts)
        # Written last: a folder with a manifest is a complete beginning.
        self._write_manifest(secrets.token_hex(8), contains_canaries=contains_canaries)

    def _write_manifest(self, run_id: str, *, contains_canaries: bool) -> None:
        mark = {"contains_canaries": True} if contains_canaries else {}
        write_json(self.manifest, {"run_id": run_id, "layout": 1, **mark})

    @classmethod
    def open(cls, root: Path) -> "RunDir":
        """Opens an existing run.

        Raises:
            RunDirError: there is none.
        """
        run = cls(root)
        if not run.manifest.exists():
            raise RunDirError(f"{root} holds no run; start one with: rpsg run")
        return run

    def _is_unfinished(self) -> bool:
        # Killed while it was begun: nothing but empty parts and settings, so it can be begun again.
        inside = {path.name for path in self.root.iterdir()}
        private = {path.name for path in self.private.iterdir()} if self.private.is_dir() else set()
        begun = {"config.yaml", "data.json", "run.lock"}
        return inside <= {"private", "done"} and all(
            name in begun or name.startswith((".config.yaml-", ".data.json-")) for name in private
        )

    def _check_same(self, config: RunConfig, parts: Mapping[str, str]) -> None:
        changed = changed_fields(self.read_config(), config)
        what = other_part(json.loads((self.private / "data.json").read_text()), parts)
        if not changed and not what:
            return
        # Where a file is another one, going on needs it back first.
        first = "go" if not what else "put back what it was begun with and go"
        if changed:
            what = f"another configuration ({', '.join(changed)} changed)"
        raise RunDirError(
            f"{self.root} holds a run of {what}; name a new folder with -o, "
            f"or {first} on with that run: rpsg resume {self.root}"
        )

    # --- canaries ------------------------------------------------------------------------------

    @property
    def contains_canaries(self) -> bool:
        """Whether the run was made from data with planted canaries, by its manifest or its card."""
        values = [json.loads(self.manifest.read_text(encoding="utf-8"))]
        card = self.release / "privacy_card.json"
        if card.exists():
            values.append(json.loads(card.read_text(encoding="utf-8")).get("inputs", {}))
        return any(bool(item.get("contains_canaries", False)) for item in values)

    def check_publishable(self) -> None:
        """Refuses to let a run of planted data leave the machine. Whatever publishes a run calls it first.

        Raises:
            RunDirError: the run was made from data with planted canaries.
        """
        if self.contains_canaries:
            raise RunDirError(
                f"{self.root} was made from data with planted canaries, for an audit: its texts may repeat "
                "made-up records. Publish a second run, of the data without canaries: rpsg run"
            )

    # --- shards --------------------------------------------------------------------------------

    def shard(self, name: str) -> Path:
        """Returns the folder of a shard."""
        return self.private / "shards" / name

    def shard_names(self) -> list[str]:
        """Names the shards that were begun."""
        return sorted(path.name for path in (self.private / "shards").glob("*") if path.is_dir())

    def is_shard_done(self, name: str) -> bool:
        """Tells whether a shard is complete."""
        return (self.shard(name) / "done").exists()

    def mark_shard(self, name: str) -> None:
        """Notes that a shard is complete."""
        (self.shard(name) / "done").touch(mode=0o600)

    @contextmanager
    def working_on_shard(self, name: str) -> Iterator[None]:
        """Keeps other processes off a shard meanwhile; other shards are worked on at the same time.

        Raises:
            RunDirError: another process is working on it.
        """
        path = self.shard(name)
        for folder in (path.parent, path):
            folder.mkdir(mode=0o700, exist_ok=True)
        with (path / "shard.lock").open("a") as file:
            (path / "shard.lock").chmod(0o600)
            if not _take(file):
                raise RunDirError(f"another process is working on shard {name} of {self.root}")
            yield

    # --- who works on it -----------------------------------------------------------------------

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keeps other processes off the run meanwhile; a killed process keeps nobody off.

        Raises:
            RunDirError: another process is working on it.
        """
        path = self.private / "run.lock"
        with path.open("a") as file:
            path.chmod(0o600)
            if not _take(file):
                raise RunDirError(
                    f"another process is working on {self.root}; follow it with: rpsg status {self.root}"
                )
            yield

    def check_not_purged(self) -> None:
        """Refuses to go on from nothing: every call would be made, and paid, again.

        Raises:
            RunDirError: the run's stored model calls were removed.
        """
        if self.is_done("purged"):
            raise RunDirError(
                f"{self.root} is finished, and its stored model calls were removed: there is nothing to go "
                "on from; name a new folder with -o"
            )

    @property
    def is_worked_on(self) -> bool:
        """Whether a process is working on the run now."""
        try:
            with (self.private / "run.lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def note_progress(self, figures: Mapping[str, object]) -> None:
        """Writes how far the run is, counts only, for another terminal to read."""
        path = self.private / "progress.json"
        # Read while it is written, but worth no wait for the disk.
        part = path.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps({"time": round(time.time(), 3), **figures}))
        part.replace(path)

    def read_progress(self) -> dict[str, object]:
        """Returns what was noted last; empty before the first note."""
        try:
            found: dict[str, object] = json.loads((self.private / "progress.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    # --- reading and writing -------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """A random id that says nothing of the data."""
        return str(json.loads(self.manifest.read_text())["run_id"])

    @property
    def binding(self) -> str:
        """A hash of what the run belongs to: its id, configuration and data; private."""
        parts = (self.run_id, self.config.read_text(), (self.private / "data.json").read_text())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def read_config(self) -> RunConfig:
        """Returns the configuration the run was started with.

        Raises:
            RunDirError: the private part, which holds it, was removed.
        """
        if not self.private.is_dir():
            raise RunDirError(
                f"{self.private} was removed: the release stays as it is; look at it with: "
                f"rpsg report {self.root}, check it with: rpsg card check {self.release}/privacy_card.json"
            )
        return RunConfig.load(self.config)

    def mark(self, step: str) -> None:
        """Notes that a step is complete."""
        (self.root / "done" / step).touch()

    def is_done(self, step: str) -> bool:
        """Tells whether a step was completed."""
        return (self.root / "done" / step).exists()

    def log(self, event: str, figures: Mapping[str, object]) -> None:
        """Appends a line of counts and seconds, never text, to `private/events.jsonl`."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **figures})
        path = self.private / "events.jsonl"
        path.touch(mode=0o600)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_private(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Writes rows as JSON lines to `private/<name>.jsonl`."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(self.private / f"{name}.jsonl", text)

    def write_vectors(self, vectors: Mapping[str, "FloatArray"], *, ids: Sequence[str]) -> None:
        """Keeps embeddings for the map of the private report, in `private/scores/vectors.npz`.

        Args:
            vectors: of real, held-out and synthetic texts, shape (n, d) each.
            ids: of the synthetic texts, in order.
        """
        import numpy as np

        path = self.private / "scores" / "vectors.npz"
        part = path.with_suffix(".part")
        part.parent.mkdir(mode=0o700, exist_ok=True)
        part.touch(mode=0o600)
        with part.open("wb") as file:
            # Half precision moves no point by a visible amount.
            halves = {name: array.astype(np.float16) for name, array in vectors.items()}
            np.savez(file, allow_pickle=False, ids=np.array(ids, str), **halves)
        part.replace(path)

    def write_release(
        self,
        rows: Sequence[SyntheticText],
        *,
        write_rows: Callable[[Path], None],
        documents: Mapping[str, str],
        mode: int = 0o755,
    ) -> None:
        """Writes `release/` in one step: the folder appears whole or not at all.

        Args:
            rows: the released texts; anything else is refused.
            write_rows: writes the data files into the given folder.
            documents: file name to content.
            mode: who may open the folder.

        Raises:
            PrivateDataError: a row is not a released text.
        """
        if not all(isinstance(row, SyntheticText) for row in rows):
            raise PrivateDataError("release/ takes released texts only; pass them through Ledger.release")
        self.root.mkdir(parents=True, exist_ok=True)

        def fill(folder: Path) -> None:
            write_rows(folder)
            for name, content in documents.items():
                write_text(folder / name, content)

        write_folder(self.release, fill, mode=mode)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Writes a whole text file or nothing; see `write_bytes`."""
    write_bytes(path, str.encode(text), private=private)


def write_bytes(path: Path, content: bytes, *, private: bool = False) -> None:
    """Writes a whole file or nothing: temporary name, fsync, rename.

    Only its owner can read it, at any moment, if it is private or in a folder of that name.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o600 if private or "private" in path.parts else 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object, *, private: bool = False) -> None:
    """Writes a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", private=private)


def new_run_folder(base: Path = Path("runs")) -> Path:
    """Returns a fresh folder name: time and a few random characters."""
    return base / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _take(file: TextIO) -> bool:
    # Someone who only looks whether the run is worked on holds the lock for a moment.
    for _ in range(10):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False
