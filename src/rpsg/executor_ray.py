"""Chunks computed on a Ray cluster. The one module that imports Ray, which needs the extra `[ray]`.

Ray's messages, which it serialises itself, carry file names, a model's name and settings, and types of
errors; never a text. A worker reads its chunk from the run folder, which every node must see at the same
path, or from `executor.storage`, and writes the result there. A lost worker's chunks are computed by
others, to the same bytes.
"""

import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from rpsg.bucket import BucketUrl
from rpsg.endpoints import ExecutorConfig
from rpsg.errors import ConfigError, ModelError, ModelUnavailable, RunDirError
from rpsg.exchange import clear_left, note_place, open_exchange
from rpsg.executor import AHEAD, Description, Spec
from rpsg.ray_worker import RayWorker, installed_version
from rpsg.types import Device

# How often a driver that waits looks whether the cluster can still compute.
_LOOK_SECONDS = 20.0
# How long there may be no worker at all; a cluster that grows when asked needs some minutes.
_PATIENCE_SECONDS = 300.0
_KNOCK_SECONDS = 10.0
# Workers that are lost over the same chunk before it is taken to be the reason.
_MOST_LOSSES = 5
_LONGEST_FOLDER = 24  # bytes: of a socket's 107 Ray takes up to 65, and the name of our folder 18
# Ray's object store holds nothing but its own small messages.
_STORE_BYTES = 80 * 2**20
# Ray tells its makers how it is used, and shows what workers print, unless it is told not to.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(slots=True)
class _Seat:
    """A worker as the driver sees it.

    Attributes:
        actor: the worker.
        joining: a call that is answered when the worker is there; None once it was.
        n_busy: chunks that it was given.
    """

    actor: Any
    joining: Any
    n_busy: int = 0

    @property
    def has_room(self) -> bool:
        return self.joining is None and self.n_busy <= AHEAD

    def expect(self) -> None:
        """Waits for a worker that was lost. Ray repeats the call itself until it has started one again."""
        self.joining = self.actor.join.options(max_task_retries=-1).remote()


class RayExecutor:
    """Gives chunks to actors, each with models of its own, a few at a time."""

    def __init__(
        self, config: ExecutorConfig, private: Path, *, threads: int, device: Device = "cpu"
    ) -> None:
        """Connects to a cluster, or starts one, and starts the workers.

        Args:
            config: how many workers, and where.
            private: of the run folder; chunks lie in `work`, what Ray spills of its own messages in `ray`.
            threads: processors of a worker.
            device: `cuda` gives each worker a GPU.

        Raises:
            ConfigError: Ray is not installed.
            ModelError: the cluster cannot be reached, or has too few processors for one worker.
        """
        self._undo: list[Callable[[], object]] = []
        self._needs = {"num_cpus": threads, "num_gpus": 1 if device == "cuda" else 0}
        self._seats: list[_Seat] = []
        try:
            self._open(config, private, threads)
        except BaseException:
            self.close()
            raise

    def _open(self, config: ExecutorConfig, private: Path, threads: int) -> None:
        self._set({name: value for name, value in _QUIET.items() if name not in os.environ})
        if not config.address and not _is_in_use():
            if sys.modules.get("ray") is not None and not _token.cache_info().currsize:
                raise ConfigError(
                    "executor.kind: ray: Ray was imported before the run began, so its processes would "
                    "listen on the network; begin the run first, or name a cluster in executor.address"
                )
            # Not across machines: then it listens on the loopback address only. The token keeps other users
            # of this machine out. Ray reads both when it is imported.
            self._set({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
            self._set({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()})
        try:
            import ray
        except ImportError:
            raise ConfigError(
                'executor.kind: ray needs Ray: pip install "rpsg[ray]", or use executor.kind: threads'
            ) from None
        self._ray: Any = ray
        place = self._open_files(config.storage, private)
        if not _is_in_use():
            self._undo.append(ray.shutdown)
            self._connect(config, private / "ray", threads)
        if not self._places():
            raise ModelError(f"the Ray cluster has no room for a worker: each needs {self._describe_needs()}")
        kind = ray.remote(RayWorker).options(**self._needs, max_restarts=-1, scheduling_strategy="SPREAD")
        for _ in range(config.workers or self._places()):
            seat = _Seat(kind.remote(place), None)
            seat.expect()
            self._seats.append(seat)
            self._undo.append(partial(ray.kill, seat.actor))
        self._seen = time.monotonic()
        self._n_calls = 0

    def _open_files(self, storage: str, private: Path) -> str:
        """Makes the place of chunks and results; returns what workers open."""
        # A run that was killed left chunks behind. A name of its own: workers of that run may still write.
        name = secrets.token_hex(8)
        if storage:
            place = str(BucketUrl.parse(storage).below(f"rpsg-{name}"))
            note_place(private, place)
            self._undo.append(partial(clear_left, private))
        else:
            work = private.resolve() / "work"
            shutil.rmtree(work, ignore_errors=True)
            place = str(work / name)
            Path(place).mkdir(mode=0o700, parents=True)
            work.chmod(0o700)
            self._undo.append(partial(shutil.rmtree, work, ignore_errors=True))
        self._files = open_exchange(place)
        return place

    def describe(self, spec: Spec) -> Description:
        """Loads a model on a worker and says what it is.

        Raises:
            ModelUnavailable: it cannot be loaded there.
        """
        ((_, found),) = self._spread([lambda actor: actor.describe.remote(spec)])
        if isinstance(found, str):
            raise ModelUnavailable(f"on a Ray worker: {found}")
        description: Description = found
        return description

    def compute(self, spec: Spec, chunks: Iterable[str]) -> Iterator[tuple[int, str]]:
        """Yields results as they are done; a chunk's files are removed when its result is read.

        Raises:
            ModelError: a model failed, or no worker is left.
            RunDirError: a chunk cannot be written.
        """
        self._n_calls += 1
        calls = (partial(self._ask, spec, place, chunk) for place, chunk in enumerate(chunks))
        for place, why in self._spread(calls):
            name = self._name(place)
            if why:
                raise ModelError(f"on a Ray worker: {self._read_why(why, name)}")
            result = self._files.read(f"{name}.done")
            if result is None:
                raise RunDirError("a result that a Ray worker wrote is gone; resume the run: rpsg resume")
            self._files.remove(f"{name}.done")
            self._files.remove(f"{name}.json")
            yield place, result

    def close(self) -> None:
        """Ends the workers, and the cluster if it was started here; removes what they had not finished."""
        if self._undo:
            try:
                self._undo.pop()()
            finally:
                self.close()

    def _ask(self, spec: Spec, place: int, chunk: str, actor: Any) -> Any:  # noqa: ANN401 (Ray's)
        self._files.write(f"{self._name(place)}.json", chunk)
        return actor.compute.remote(spec, self._name(place))

    def _name(self, place: int) -> str:
        return f"{self._n_calls}-{place}"

    def _read_why(self, why: str, name: str) -> str:
        if why == "no chunk":
            return (
                "it does not see the chunks; put the run folder (-o) where all nodes see it at the same "
                "path, or name executor.storage"
            )
        return self._files.read(f"{name}.why") or why

    def _spread(self, calls: Iterable[Callable[[Any], Any]]) -> Iterator[tuple[int, Any]]:
        """Makes each call on the least busy worker; yields place and answer as they come."""
        new, again = enumerate(calls), deque[tuple[int, Callable[[Any], Any]]]()
        open_calls: dict[Any, tuple[int, Callable[[Any], Any], _Seat]] = {}
        losses: dict[int, int] = {}
        try:
            while True:
                while (seat := self._free_seat()) is not None:
                    place, call = again.popleft() if again else next(new, (-1, None))
                    if call is None:
                        break
                    open_calls[call(seat.actor)] = place, call, seat
                    seat.n_busy += 1
                if not open_calls and seat is not None:
                    return
                for ref in self._wait(open_calls):
                    place, call, seat = open_calls.pop(ref)
                    seat.n_busy -= 1
                    try:
                        answer = self._ray.get(ref)
                    except self._ray.exceptions.RayTaskError as error:
                        raise ModelError(f"on a Ray worker: a bug: {type(error.cause).__name__}") from None
                    except self._ray.exceptions.RayError as error:
                        losses[place] = losses.get(place, 0) + 1
                        self._lost(seat, losses[place], error)
                        again.append((place, call))
                        continue
                    yield place, answer
        finally:
            for _, _, seat in open_calls.values():
                seat.n_busy -= 1

    def _free_seat(self) -> _Seat | None:
        free = [seat for seat in self._seats if seat.has_room]
        return min(free, key=lambda seat: seat.n_busy) if free else None

    def _lost(self, seat: _Seat, n_losses: int, error: Exception) -> None:
        if n_losses >= _MOST_LOSSES:
            raise ModelError(
                f"{n_losses} Ray workers were lost over the same chunk ({type(error).__name__}); is their "
                "memory full? Lower executor.workers, or use a smaller model. The run keeps what is done: "
                "rpsg resume"
            )
        if seat.joining is None:
            seat.expect()

    def _wait(self, open_calls: Mapping[Any, object]) -> list[Any]:
        """Waits until a call is answered or a worker is there; returns the calls that are answered."""
        joining = {seat.joining: seat for seat in self._seats if seat.joining is not None}
        done, _ = self._ray.wait([*open_calls, *joining], num_returns=1, timeout=_LOOK_SECONDS)
        for ref in done:
            if ref in joining:
                self._let_in(joining[ref])
        if any(seat.joining is None for seat in self._seats):
            self._seen = time.monotonic()
        elif not self._places() or time.monotonic() - self._seen > _PATIENCE_SECONDS:
            raise ModelError(
                f"no node of the Ray cluster has room for a worker any more: each needs "
                f"{self._describe_needs()}; the run keeps what is done: rpsg resume"
            )
        return [ref for ref in done if ref in open_calls]

    def _let_in(self, seat: _Seat) -> None:
        try:
            version = self._ray.get(seat.joining)
        except self._ray.exceptions.RayError as error:
            # Ray would have tried for ever; this one it has given up.
            self._seats.remove(seat)
            if not self._seats:
                raise ModelError(
                    f"no Ray worker can be started ({type(error).__name__}); is rpsg installed on every "
                    "node? The run keeps what is done: rpsg resume"
                ) from None
            return
        own = installed_version()
        if version != own:
            raise ConfigError(
                f"a node of Ray has rpsg {version}, and this is {own}: install one version on all"
            )
        seat.joining = None

    def _set(self, values: Mapping[str, str]) -> None:
        """Sets variables of the environment until the executor is closed."""
        for name, value in values.items():
            before = os.environ.get(name)
            os.environ[name] = value
            undo = partial(os.environ.pop, name, None) if before is None else None
            self._undo.append(undo or partial(os.environ.__setitem__, name, str(before)))

    def _connect(self, config: ExecutorConfig, spill: Path, threads: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if config.address:
            if config.address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
                raise ConfigError(
                    'executor.address: ray://... needs Ray\'s client: pip install "ray[client]"; or give '
                    "HOST:PORT, from a machine of the cluster"
                )
            try:
                _knock(config.address)
                self._ray.init(address=config.address, **quiet)
            except (OSError, ValueError, RuntimeError) as error:
                raise ModelError(
                    f"no Ray cluster at executor.address ({type(error).__name__}); start one with ray start "
                    "--head, or leave the address out"
                ) from None
            return
        spill.mkdir(mode=0o700, exist_ok=True)
        scratch = _short_folder()
        for folder in (spill, scratch):
            self._undo.insert(0, partial(shutil.rmtree, folder, ignore_errors=True))
        n_workers = config.workers or max(1, (os.cpu_count() or 1) // threads)
        # By default Ray would join any cluster that it finds on this machine.
        self._ray.init(
            address="local",
            num_cpus=n_workers * threads,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=str(scratch),
            object_spilling_directory=str(spill.resolve()),
            **quiet,
        )

    def _places(self) -> int:
        """Returns how many workers the nodes have room for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(_fit(resources, self._needs) for resources in nodes)

    def _describe_needs(self) -> str:
        return f"{self._needs['num_cpus']} processors" + (" and a GPU" if self._needs["num_gpus"] else "")


def _short_folder() -> Path:
    """Makes a folder for Ray's sockets, whose names are short: not in the run folder."""
    base = tempfile.gettempdir() if len(tempfile.gettempdir()) <= _LONGEST_FOLDER else "/tmp"
    return Path(tempfile.mkdtemp(prefix="rpsg-ray-", dir=base))


def _knock(address: str) -> None:
    """Raises OSError where nothing listens: Ray itself would look for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


@cache
def _token() -> str:
    # One a process: Ray remembers the first.
    return secrets.token_hex(32)


def _is_in_use() -> bool:
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _fit(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    rooms = [resources.get("CPU", 0) // needs["num_cpus"]]
    if needs["num_gpus"]:
        rooms.append(resources.get("GPU", 0) // needs["num_gpus"])
    return int(min(rooms))
