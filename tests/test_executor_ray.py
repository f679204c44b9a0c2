"""A real Ray cluster of several nodes: the same bytes, whatever is killed, no private text in its files."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rpsg import executor_ray
from rpsg.data import read_corpus, sample_path
from rpsg.endpoints import ExecutorConfig
from rpsg.errors import ConfigError, ModelError, ModelUnavailable
from rpsg.executor import Spec, SpreadTextModel
from rpsg.executor_ray import RayExecutor
from rpsg.privacy.ledger import Ledger
from rpsg.text import words_of
from rpsg.types import Progress
from test_executor import STAGES, TEXTS, config, release_of, request
from tiny_models import tiny_llama

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")
GUARANTEES = ("selection", "end-to-end")


class Nodes:
    """A cluster whose nodes have room for one worker each, besides a head that has room for none."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.nodes: list[Any] = []
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")

    def have(self, n: int) -> None:
        while len(self.nodes) < n:
            self.nodes.append(self._cluster.add_node(num_cpus=1))
        while len(self.nodes) > n:
            self.lose()
        self._cluster.wait_for_nodes()

    def lose(self) -> None:
        self._cluster.remove_node(self.nodes.pop(0), allow_graceful=False)

    def close(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.close()


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("serial")
    return {name: release_of(config(root / name, name)) for name in GUARANTEES}


def workers() -> list[psutil.Process]:
    """The processes of the actors."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "ray::RayWorker" in " ".join(process.info["cmdline"] or [])
    ]


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


def kill_a_worker() -> None:
    os.kill(workers()[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("n_nodes", [1, 2, 4])
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_cluster_releases_the_bytes_of_one_process(
    tmp_path: Path, nodes: Nodes, serial: dict[str, bytes], guarantee: str, n_nodes: int
) -> None:
    nodes.have(n_nodes)
    assert release_of(config(tmp_path / "run", guarantee, kind="ray")) == serial[guarantee]
    assert not list((tmp_path / "run/private/work").iterdir())


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_worker_killed_in_every_stage_changes_nothing(
    tmp_path: Path, nodes: Nodes, serial: dict[str, bytes], guarantee: str
) -> None:
    nodes.have(2)
    saboteur = Saboteur(kill_a_worker)
    found = release_of(config(tmp_path / "run", guarantee, kind="ray", workers=2), saboteur)
    assert found == serial[guarantee] and saboteur.stages >= STAGES[guarantee]
    with Ledger.open(tmp_path / "run/private/ledger.sqlite") as ledger:
        labels = [line.label for line in ledger.lines()]
    assert len(labels) == len(set(labels))


def test_a_node_that_is_lost_changes_nothing(tmp_path: Path, nodes: Nodes, serial: dict[str, bytes]) -> None:
    nodes.have(3)
    saboteur = Saboteur(nodes.lose, only="keys, first")
    found = release_of(config(tmp_path / "run", "end-to-end", kind="ray", workers=2), saboteur)
    assert found == serial["end-to-end"] and saboteur.stages == {"keys, first"}


@pytest.mark.prove
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_node_lost_in_every_stage_changes_nothing(
    tmp_path: Path, nodes: Nodes, serial: dict[str, bytes], guarantee: str
) -> None:
    def lose() -> None:
        nodes.have(3)
        nodes.lose()

    saboteur = Saboteur(lose)
    nodes.have(3)
    found = release_of(config(tmp_path / "run", guarantee, kind="ray", workers=2), saboteur)
    assert found == serial[guarantee] and saboteur.stages >= STAGES[guarantee]


def test_a_cluster_without_room_is_refused_and_one_that_dies_is_told(
    tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_ray, "_LOOK_SECONDS", 1.0)
    nodes.have(0)
    with pytest.raises(ModelError, match="no room for a worker: each needs 1 processors"):
        release_of(config(tmp_path / "none", "selection", kind="ray"))
    nodes.have(1)
    with pytest.raises(ModelError, match="rpsg resume"):
        release_of(
            config(tmp_path / "run", "selection", kind="ray", workers=1), Saboteur(lambda: nodes.have(0))
        )


def test_each_worker_loads_a_model_once_and_writes_as_here(tmp_path: Path, nodes: Nodes) -> None:
    nodes.have(2)
    folder = tiny_llama(tmp_path / "model")
    spec = Spec(kind="text", name=str(folder), threads=1, dtype="float32")
    executor = RayExecutor(ExecutorConfig(kind="ray", workers=2), tmp_path, threads=1)
    try:
        away = SpreadTextModel(executor, spec)
        chunks = [[request(TEXTS[seed % 3], seed)] for seed in range(12)]
        found = dict(away.compute(chunks))
        before = {process.pid: process.create_time() for process in workers()}
        # A model's files are read when it is loaded, and not again.
        (folder / "model.safetensors").unlink()
        again = dict(away.compute(chunks))
        assert found == again and {p.pid: p.create_time() for p in workers()} == before and len(before) == 2
        with pytest.raises(ModelUnavailable, match="on a Ray worker"):
            SpreadTextModel(executor, Spec(kind="text", name=str(tmp_path / "nothing")))
    finally:
        executor.close()
    here: Any = Spec(kind="text", name=str(tiny_llama(tmp_path / "again")), threads=1, dtype="float32").load()
    assert [found[place] for place in range(12)] == [[here.complete(chunk)] for chunk in chunks]


def test_a_bug_in_a_worker_is_named_without_its_message(tmp_path: Path, nodes: Nodes) -> None:
    nodes.have(1)
    executor = RayExecutor(ExecutorConfig(kind="ray", workers=1), tmp_path, threads=1)
    try:
        with pytest.raises(ModelError, match="on a Ray worker: a bug: JSONDecodeError") as raised:
            list(executor.compute(Spec(kind="embedder", name="hash"), ["a private text, not JSON"]))
        assert "private text" not in str(raised.value)
    finally:
        executor.close()


def test_without_ray_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "rpsg\[ray\]"'):
        release_of(config(tmp_path / "run", "selection", kind="ray"))


def test_no_private_text_is_in_rays_files(tmp_path: Path, nodes: Nodes) -> None:
    nodes.have(1)
    release_of(config(tmp_path / "run", "selection", kind="ray", workers=1))
    corpus = read_corpus(sample_path("posts_train.jsonl"))
    runs = {
        " ".join(words[start : start + 6])
        for words in (words_of(record.text) for record in corpus.records)
        for start in range(len(words) - 5)
    }
    folder = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        words = words_of(path.read_bytes().decode("utf-8", "ignore"))
        found = {" ".join(words[start : start + 6]) for start in range(len(words) - 5)}
        assert not found & runs, path


def test_a_cluster_of_our_own_is_started_and_ended(tmp_path: Path) -> None:
    """As a user types it, without a cluster; what Ray spills would lie in the run folder."""
    data = sample_path("posts_train.jsonl")
    options = {
        "executor": "ray", "generation.threads": 1, "models.embed": "hash", "models.sentiment": "null",
        "refine.pii.enabled": "false", "refine.nll.enabled": "false", "evaluate.enabled": "false",
    }  # fmt: skip
    settings = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    command = [
        sys.executable,
        "-m",
        "rpsg",
        "run",
        str(data),
        "--guarantee",
        "none",
        "-n",
        "10",
        "--model",
        "fake",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    before = {process.pid for process in psutil.process_iter()}
    done = subprocess.run(
        [*command, *settings, "-o", str(tmp_path / "run")],
        cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run/release/synthetic.jsonl").read_text().splitlines()) >= 5
    assert stat.S_IMODE((tmp_path / "run/private/ray").stat().st_mode) == 0o700
    left = [process for process in psutil.process_iter(["name"]) if process.pid not in before]
    assert not [item.info["name"] for item in left if "ray" in (item.info["name"] or "")]
