"""Chunks computed on a Ray cluster. The one module that imports Ray, which needs the extra `[ray]`.

Ray's messages, which it serialises itself, carry file names, a model's name and settings, and reasons of
failure; never a text. A worker reads its chunk from the run folder, which every node must see at the same
path, and writes the result there. A worker that is lost is started again, and its chunks are computed again:
they are the same bytes.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rpsg.endpoints import ExecutorConfig
from rpsg.errors import ConfigError, ModelError, ModelUnavailable, RpsgError
from rpsg.executor import AHEAD, Description, Spec, Worker
from rpsg.rundir import write_text
from rpsg.types import Device

# How often a driver that waits looks whether the cluster can still compute.
_LOOK_SECONDS = 20.0
# Ray tells its makers how it is used, and shows what workers print, unless it is told not to.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


class RayWorker:
    """The actor: loads each model once, computes one chunk at a time."""

    def __init__(self, work: str) -> None:
        """Takes the folder of chunks and results."""
        self._work, self._worker = Path(work), Worker()

    def describe(self, spec: Spec) -> Description | str:
        """Loads a model; returns what it is, or why it cannot be loaded."""
        try:
            return Description.of(self._worker.model(spec))
        except RpsgError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 (a message of another library may quote a text)
            return f"a bug: {type(error).__name__}"

    def compute(self, spec: Spec, name: str) -> str:
        """Computes a chunk; returns why it could not, or nothing."""
        try:
            chunk = (self._work / name).read_text(encoding="utf-8")
            write_text(self._work / f"{name}.done", self._worker.compute(spec, chunk), private=True)
        except RpsgError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 (likewise)
            return f"a bug: {type(error).__name__}"
        return ""


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
        os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
        try:
            import ray
        except ImportError:
            raise ConfigError(
                'executor.kind: ray needs Ray: pip install "rpsg[ray]", or use executor.kind: threads'
            ) from None
        self._ray: Any = ray
        self._work = private / "work"
        self._work.mkdir(mode=0o700, exist_ok=True)
        self._needs = {"num_cpus": threads, "num_gpus": 1 if device == "cuda" else 0}
        self._connected = not ray.is_initialized()
        if self._connected:
            self._connect(config, private / "ray", threads)
        n_workers = config.workers or self._places()
        if not self._places():
            self.close()
            raise ModelError(f"the Ray cluster has no room for a worker: each needs {self._describe_needs()}")
        actor = ray.remote(RayWorker).options(
            **self._needs, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
        )
        self._actors: list[Any] = [actor.remote(str(self._work.resolve())) for _ in range(n_workers)]
        self._n_calls = 0

    def describe(self, spec: Spec) -> Description:
        """Loads a model on the first worker and says what it is.

        Raises:
            ModelUnavailable: it cannot be loaded there.
        """
        (found,) = self._results({self._actors[0].describe.remote(spec): 0})
        if isinstance(found[1], str):
            raise ModelUnavailable(f"on a Ray worker: {found[1]}")
        description: Description = found[1]
        return description

    def compute(self, spec: Spec, chunks: Iterable[str]) -> Iterator[tuple[int, str]]:
        """Yields results as they are done; a chunk's files are removed when its result is read.

        Raises:
            ModelError: a model failed, or no worker is left.
        """
        self._n_calls += 1
        waiting = deque(enumerate(chunks))
        open_calls: dict[Any, tuple[int, int]] = {}
        load = [0] * len(self._actors)
        while waiting or open_calls:
            while waiting and min(load) <= AHEAD:
                place, chunk = waiting.popleft()
                worker = load.index(min(load))
                write_text(self._file(place), chunk, private=True)
                call = self._actors[worker].compute.remote(spec, self._file(place).name)
                open_calls[call] = (place, worker)
                load[worker] += 1
            call, why = next(self._results(open_calls))
            place, worker = open_calls.pop(call)
            load[worker] -= 1
            if why:
                raise ModelError(f"on a Ray worker: {why}")
            done = self._file(place).with_name(f"{self._file(place).name}.done")
            yield place, done.read_text(encoding="utf-8")
            done.unlink()
            self._file(place).unlink()

    def close(self) -> None:
        """Ends the workers, and the cluster if it was started here; removes what they had not finished."""
        for actor in getattr(self, "_actors", []):
            self._ray.kill(actor)
        if self._connected:
            self._ray.shutdown()
        for file in self._work.iterdir():
            file.unlink()

    def _file(self, place: int) -> Path:
        return self._work / f"{self._n_calls}-{place}.json"

    def _connect(self, config: ExecutorConfig, spill: Path, threads: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if config.address:
            try:
                self._ray.init(address=config.address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ModelError(
                    f"no Ray cluster at executor.address ({type(error).__name__}); start one with ray start "
                    "--head, or leave the address out"
                ) from None
            return
        spill.mkdir(mode=0o700, exist_ok=True)
        n_workers = config.workers or max(1, (os.cpu_count() or 1) // threads)
        # By default Ray would join any cluster that it finds on this machine.
        self._ray.init(
            address="local",
            num_cpus=n_workers * threads,
            include_dashboard=False,
            object_spilling_directory=str(spill.resolve()),
            **quiet,
        )

    def _places(self) -> int:
        """Returns how many workers the nodes have room for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(_fit(resources, self._needs) for resources in nodes)

    def _describe_needs(self) -> str:
        return f"{self._needs['num_cpus']} processors" + (" and a GPU" if self._needs["num_gpus"] else "")

    def _results(self, calls: Mapping[Any, object]) -> Iterator[tuple[Any, Any]]:
        """Yields a call that is done and its result; looks after the cluster while it waits."""
        while True:
            done, _ = self._ray.wait(list(calls), num_returns=1, timeout=_LOOK_SECONDS)
            if done:
                try:
                    yield done[0], self._ray.get(done[0])
                except self._ray.exceptions.RayError as error:
                    raise ModelError(
                        f"a Ray worker was lost and could not be started again ({type(error).__name__}); the "
                        "run keeps what is done: rpsg resume"
                    ) from None
                return
            if not self._places():
                raise ModelError(
                    f"no node of the Ray cluster has room for a worker any more: each needs "
                    f"{self._describe_needs()}; the run keeps what is done: rpsg resume"
                )


def _fit(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    rooms = [resources.get("CPU", 0) // needs["num_cpus"]]
    if needs["num_gpus"]:
        rooms.append(resources.get("GPU", 0) // needs["num_gpus"])
    return int(min(rooms))
