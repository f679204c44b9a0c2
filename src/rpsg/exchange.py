"""Where chunks and results lie while workers compute: the run folder, or storage that all nodes reach."""

import platform
import shutil
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from rpsg.errors import ConfigError, RunDirError
from rpsg.rundir import write_text


class Exchange(Protocol):
    """Small files by name. They hold private text, and are gone when the run is."""

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
        """Removes a file that is there.

        Raises:
            RunDirError: it cannot be removed.
        """

    def clear(self) -> None:
        """Removes everything; nothing may be there.

        Raises:
            RunDirError: storage cannot be reached.
        """


def place_of(storage: str, private: Path) -> str:
    """Returns the place of a run's chunks: below `storage`, or `work` in the private part of the run folder.

    In shared storage it has a name of its own: the same for one folder of one machine, and no other.
    """
    if not storage:
        return str(private.resolve() / "work")
    own = sha256(f"{platform.node()}:{private.resolve()}".encode()).hexdigest()
    return below(storage, f"rpsg-{own[:16]}")


def below(place: str, name: str) -> str:
    """Returns the place of a folder in another; a URL's options stay at its end."""
    path, mark, options = place.partition("?") if "://" in place else (place, "", "")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def open_exchange(place: str) -> Exchange:
    """Opens a folder, or the URL of one in storage (s3://, gs:// and others of Arrow).

    Raises:
        ConfigError: there is no such kind of storage.
    """
    return StoredFiles(place) if "://" in place else FolderFiles(Path(place))


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
        """Removes a file that is there."""
        (self.folder / name).unlink()

    def clear(self) -> None:
        """Removes the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class StoredFiles:
    """Objects below a URL. Who may read them, and how they are encrypted, is the bucket's own matter.

    What the library says of an error may quote a request, so only its type is told.
    """

    url: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from pyarrow.fs import FileSystem

        try:
            opened: tuple[Any, str] = FileSystem.from_uri(self.url)
        except (ValueError, NotImplementedError, OSError):
            raise ConfigError(
                f"executor.storage: {self._shown} is no URL of storage that Arrow can open, such as "
                "s3://bucket/folder or gs://bucket/folder"
            ) from None
        return opened

    @property
    def _shown(self) -> str:
        return self.url.partition("?")[0]

    def read(self, name: str) -> str | None:
        """Returns an object's text, or None where there is no such object."""
        system, folder = self._opened
        try:
            with system.open_input_stream(f"{folder}/{name}") as file:
                return str(file.read().decode("utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed("read from", error) from None

    def write(self, name: str, text: str) -> None:
        """Writes an object, which is there as a whole or not at all."""
        system, folder = self._opened
        try:
            with system.open_output_stream(f"{folder}/{name}") as file:
                file.write(text.encode("utf-8"))
        except OSError as error:
            raise self._failed("write to", error) from None

    def remove(self, name: str) -> None:
        """Removes an object that is there."""
        system, folder = self._opened
        try:
            system.delete_file(f"{folder}/{name}")
        except OSError as error:
            raise self._failed("remove from", error) from None

    def clear(self) -> None:
        """Removes all objects below the URL."""
        system, folder = self._opened
        try:
            system.delete_dir(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed("remove from", error) from None

    def _failed(self, what: str, error: OSError) -> RunDirError:
        return RunDirError(
            f"executor.storage: cannot {what} {self._shown} ({type(error).__name__}); can this machine, "
            "and each node, reach it with credentials of its own? The run keeps what is done: rpsg resume"
        )
