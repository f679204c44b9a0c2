"""Where chunks and results lie while workers compute: the run folder, or storage that all nodes reach."""

import json
import shutil
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from rpsg.bucket import BucketUrl
from rpsg.errors import RunDirError
from rpsg.rundir import write_text

# A bucket that does not answer is given up after so long, so many times.
_SECONDS, _ATTEMPTS = 20, 3
_NOTE = "storage.json"


class Exchange(Protocol):
    """Small files by name. They hold private text, and are removed when the run ends."""

    def read(self, name: str) -> str | None:
        """Returns a file's text, or None where there is no such file.

        Raises:
            RunDirError: it cannot be read.
        """

    def write(self, name: str, text: str) -> None:
        """Writes a file as a whole: who reads it sees all of it or nothing.

        Raises:
            RunDirError: it cannot be written.
        """

    def remove(self, name: str) -> None:
        """Removes a file, if it is there.

        Raises:
            RunDirError: it cannot be removed.
        """

    def clear(self) -> None:
        """Removes everything; nothing may be there.

        Raises:
            RunDirError: storage cannot be reached.
        """


def open_exchange(place: str) -> Exchange:
    """Opens a folder, or the URL of one in a bucket."""
    return BucketFiles(BucketUrl.parse(place)) if "://" in place else FolderFiles(Path(place))


def clear_left(private: Path) -> None:
    """Removes from a bucket what a run that was ended by force left there.

    Raises:
        RunDirError: the bucket cannot be reached.
    """
    place = _noted(private)
    if place:
        try:
            open_exchange(place).clear()
        except RunDirError as error:
            raise RunDirError(f"{error}. Where the bucket is gone, remove {private / _NOTE}") from None
        note_place(private, "")


def note_place(private: Path, place: str) -> None:
    """Notes where chunks lie, so that they are found whatever becomes of the run; "" when they are gone."""
    write_text(private / _NOTE, json.dumps({"place": place}), private=True)


def was_in_bucket(private: Path) -> bool:
    """Tells whether chunks of a run ever lay in a bucket."""
    return (private / _NOTE).exists()


def _noted(private: Path) -> str:
    file = private / _NOTE
    return str(json.loads(file.read_text(encoding="utf-8"))["place"]) if file.exists() else ""


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """Files in a folder, readable by their owner alone."""

    folder: Path

    def read(self, name: str) -> str | None:
        """Returns a file's text, or None where there is no such file."""
        try:
            return (self.folder / name).read_bytes().decode("utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunDirError(f"cannot read from {self.folder.parent} ({error.strerror})") from None

    def write(self, name: str, text: str) -> None:
        """Writes a file as a whole, into a folder that is there: a late worker of an ended run makes none."""
        try:
            write_text(self.folder / name, text, private=True)
        except OSError as error:
            raise RunDirError(
                f"cannot write to {self.folder.parent} ({error.strerror}); free some space, then resume "
                "the run"
            ) from None

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class BucketFiles:
    """Objects below a URL. Who may read them, and how they are encrypted, is the bucket's own matter.

    What the library says of an error may quote a request, so only its type is told.
    """

    url: BucketUrl

    @cached_property
    def _bucket(self) -> Any:  # noqa: ANN401 (Arrow's)
        from pyarrow import fs

        options: dict[str, Any] = dict(self.url.options)
        if self.url.kind == "gs":
            options.pop("region", None)
            return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_SECONDS), **options)
        # A small object is written by one request: nothing is left of a write that was broken off.
        return fs.S3FileSystem(
            allow_delayed_open=True,
            connect_timeout=_SECONDS,
            request_timeout=_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            **options,
        )

    def read(self, name: str) -> str | None:
        """Returns an object's text, or None where there is no such object."""
        try:
            with self._bucket.open_input_stream(f"{self.url.folder}/{name}") as file:
                return str(file.read().decode("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._failed("read from", error) from None

    def write(self, name: str, text: str) -> None:
        """Writes an object."""
        content = text.encode("utf-8")
        try:
            with self._bucket.open_output_stream(f"{self.url.folder}/{name}") as file:
                file.write(content)
        except (OSError, ValueError) as error:
            raise self._failed("write to", error) from None

    def remove(self, name: str) -> None:
        """Removes an object, if it is there."""
        try:
            self._bucket.delete_file(f"{self.url.folder}/{name}")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise self._failed("remove from", error) from None

    def clear(self) -> None:
        """Removes all objects below the URL."""
        try:
            self._bucket.delete_dir(self.url.folder)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise self._failed("remove from", error) from None

    def _failed(self, what: str, error: Exception) -> RunDirError:
        return RunDirError(
            f"executor.storage: cannot {what} {self.url.kind}://{self.url.folder} ({type(error).__name__}); "
            "can this machine, and each node, reach it with credentials of its own? The run keeps what is "
            "done: rpsg resume"
        )
