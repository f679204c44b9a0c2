"""A real Ray cluster on this machine, and what may befall it."""

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from rpsg.types import Progress

# Read when Ray is imported. Without a token, Ray would write one into the home folder.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    # Of the bucket of some tests, for the nodes' own processes.
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}


class Nodes:
    """A cluster whose nodes have room for one worker each, besides a head that has room for none."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.nodes: list[Any] = []
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def have(self, n: int) -> None:
        while len(self.nodes) < n:
            self.nodes.append(self._cluster.add_node(num_cpus=1))
        while len(self.nodes) > n:
            self.lose()
        self._cluster.wait_for_nodes()

    def lose(self) -> None:
        self._cluster.remove_node(self.nodes.pop(0), allow_graceful=False)

    def close(self) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()


def workers() -> list[psutil.Process]:
    """The processes of the actors of this process's clusters; others on the machine are left alone."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ray::RayWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


class Saboteur:
    """Does harm once a stage, after its first chunk: others are being computed then."""

    def __init__(self, harm: Callable[[], None], only: str | None = None) -> None:
        self._harm, self._only = harm, only
        self.stages: set[str] = set()

    def __call__(self, step: Progress) -> None:
        wanted = self._only in (None, step.stage)
        if wanted and step.stage not in self.stages and step.done < step.total:
            self.stages.add(step.stage)
            self._harm()


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fails what takes longer: it hangs."""

    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def kill_a_worker() -> None:
    os.kill(workers()[0].pid, signal.SIGKILL)
