"""What runs on a node of a Ray cluster: an actor that computes chunks. It imports no Ray itself."""

import importlib.metadata
import os
from contextlib import suppress
from functools import cached_property

from rpsg.errors import RpsgError, RunDirError
from rpsg.exchange import Exchange, open_exchange
from rpsg.executor import Description, Spec, Worker


class RayWorker:
    """The actor: loads each model once, computes one chunk at a time."""

    def __init__(self, work: str) -> None:
        """Takes the place of chunks and results."""
        self._place, self._worker = work, Worker()

    @cached_property
    def _files(self) -> Exchange:
        return open_exchange(self._place)

    def join(self) -> str:
        """Says that it is there, and of which version."""
        return installed_version()

    def describe(self, spec: Spec) -> Description | str:
        """Loads a model; returns what it is, or why it cannot be loaded."""
        try:
            return Description.of(self._worker.model(spec))
        except RpsgError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 (a message of another library may quote a text)
            return f"a bug: {type(error).__name__}"

    def compute(self, spec: Spec, name: str) -> str:
        """Computes a chunk; returns the type of the error that kept it from that, or nothing.

        What an error of ours says is written beside the chunk: it is for the driver, not for Ray.
        """
        try:
            text = self._files.read(f"{name}.json")
            if text is None:
                return "no chunk"
            self._files.write(f"{name}.done", self._worker.compute(spec, text))
            if self._files.read(f"{name}.json") is None:
                # The run has ended meanwhile and removed what it knew of.
                self._files.remove(f"{name}.done")
        except RunDirError as error:
            return str(error)  # of places, and types of errors
        except RpsgError as error:
            with suppress(RunDirError):
                self._files.write(f"{name}.why", str(error))
            return type(error).__name__
        except Exception as error:  # noqa: BLE001 (likewise)
            return _why(error)
        return ""


def _why(error: Exception) -> str:
    # The system's own words for an error number quote nothing.
    if isinstance(error, OSError) and error.errno:
        return f"{type(error).__name__}: {os.strerror(error.errno)}"
    return f"a bug: {type(error).__name__}"


def installed_version() -> str:
    """Returns the version of this package."""
    return importlib.metadata.version("rpsg")
