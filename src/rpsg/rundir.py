"""The run folder: every file name on disk, atomic writes, done marks.

    <run>/  manifest.json  done/<step>
            private/   (0700) config.yaml ledger.sqlite calls.sqlite rejected.jsonl ...
            release/   synthetic.jsonl  privacy_card.json  privacy_card.md  README.md

Only `release/` is meant to leave the machine. A file appears under its name when it is complete.
"""

import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rpsg.config import RunConfig
from rpsg.endpoints import CallingConfig
from rpsg.errors import PrivateDataError, RunDirError
from rpsg.types import SyntheticText


class RunDir:
    """One run on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = root / "private"
        self.release = root / "release"
        self.ledger = self.private / "ledger.sqlite"
        self.calls = self.private / "calls.sqlite"
        self.config = self.private / "config.yaml"
        self.manifest = root / "manifest.json"

    # --- creation ------------------------------------------------------------------------------

    @classmethod
    def create(cls, root: Path, config: RunConfig, *, fingerprint: str, public: str = "") -> "RunDir":
        """Makes a run folder, or opens the one that the same configuration and data began.

        Args:
            root: the folder.
            config: the run's configuration.
            fingerprint: SHA-256 of the private data; kept in `private/` only.
            public: SHA-256 of the file of public topics and phrases; "" where none is used.

        Raises:
            RunDirError: the folder holds something else.
        """
        run = cls(root)
        if root.exists() and not root.is_dir():
            raise RunDirError(f"{root} is a file; name a folder with -o")
        if run.manifest.exists():
            run._check_same(config, fingerprint, public)
            return run
        if root.exists() and any(root.iterdir()) and not run._is_unfinished():
            raise RunDirError(f"{root} is not empty and holds no run; name a new folder with -o")
        try:
            run.private.mkdir(parents=True, mode=0o700, exist_ok=True)
            (root / "done").mkdir(exist_ok=True)
            write_text(run.config, config.to_yaml())
            write_json(run.private / "data.json", {"fingerprint": fingerprint, "public": public})
            # Written last: a folder with a manifest is a complete beginning.
            write_json(run.manifest, {"run_id": secrets.token_hex(8), "layout": 1})
        except OSError as error:
            raise RunDirError(f"cannot write to {root}: {error.strerror}") from None
        return run

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
        begun = {"config.yaml", "data.json"}
        return inside <= {"private", "done"} and all(
            name in begun or name.startswith((".config.yaml-", ".data.json-")) for name in private
        )

    def _check_same(self, config: RunConfig, fingerprint: str, public: str) -> None:
        same_config = _lasting(self.read_config()) == _lasting(config)
        made_of = json.loads((self.private / "data.json").read_text())
        if same_config and made_of == {"fingerprint": fingerprint, "public": public}:
            return
        same_public = made_of.get("public") == public
        what = (
            "another configuration"
            if not same_config
            else "other data"
            if same_public
            else "other public data"
        )
        raise RunDirError(
            f"{self.root} holds a run of {what}; name a new folder with -o, "
            f"or go on with that run: rpsg resume {self.root}"
        )

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
        """Returns the configuration the run was started with."""
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

    def write_release(
        self,
        rows: Sequence[SyntheticText],
        *,
        write_rows: Callable[[Path], None],
        documents: Mapping[str, str],
    ) -> None:
        """Writes `release/` in one step: the folder appears whole or not at all.

        Args:
            rows: the released texts; anything else is refused.
            write_rows: writes the data files into the given folder.
            documents: file name to content.

        Raises:
            PrivateDataError: a row is not a released text.
        """
        if not all(isinstance(row, SyntheticText) for row in rows):
            raise PrivateDataError("release/ takes released texts only; pass them through Ledger.release")
        self.root.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".release-", dir=self.root))
        staging.chmod(0o755)
        try:
            write_rows(staging)
            for name, content in documents.items():
                write_text(staging / name, content)
        except BaseException:
            _remove_tree(staging)
            raise
        if self.release.exists():
            _remove_tree(self.release)
        staging.replace(self.release)


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or nothing: temporary name, fsync, rename."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o600 if "private" in path.parts else 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Writes a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def new_run_folder(base: Path = Path("runs")) -> Path:
    """Returns a fresh folder name: time and a few random characters."""
    return base / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _lasting(config: RunConfig) -> RunConfig:
    # A run folder may be moved, and limits on calls may be raised: neither changes a text.
    output = config.output.model_copy(update={"folder": None})
    return config.model_copy(update={"output": output, "calling": CallingConfig()})


def _remove_tree(folder: Path) -> None:
    for item in folder.iterdir():
        item.unlink()
    folder.rmdir()
