"""A real Ray cluster of several nodes: the same bytes, whatever is killed, no private text in its files."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest

from ray_nodes import Nodes, Saboteur, kill_a_worker, within, workers
from rpsg import exchange, executor_ray
from rpsg.data import read_corpus, sample_path
from rpsg.endpoints import ExecutorConfig
from rpsg.errors import ConfigError, ModelError, ModelUnavailable, RunDirError
from rpsg.executor import Spec, SpreadTextModel
from rpsg.executor_ray import RayExecutor
from rpsg.privacy.ledger import Ledger
from rpsg.ray_worker import RayWorker
from rpsg.text import words_of
from s3_server import serve_bucket
from test_executor import STAGES, TEXTS, config, release_of, request
from tiny_models import tiny_llama

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")
GUARANTEES = ("selection", "end-to-end")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.close()


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("serial")
    return {name: release_of(config(root / name, name)) for name in GUARANTEES}


@pytest.mark.parametrize("n_nodes", [1, 2, 4])
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_cluster_releases_the_bytes_of_one_process(
    tmp_path: Path, nodes: Nodes, serial: dict[str, bytes], guarantee: str, n_nodes: int
) -> None:
    nodes.have(n_nodes)
    assert release_of(config(tmp_path / "run", guarantee, kind="ray")) == serial[guarantee]
    assert not (tmp_path / "run/private/work").exists()


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


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_chunks_may_lie_in_a_bucket_and_the_run_folder_on_one_machine(
    tmp_path: Path, nodes: Nodes, serial: dict[str, bytes], guarantee: str
) -> None:
    nodes.have(2)
    saboteur = Saboteur(kill_a_worker)
    with serve_bucket() as bucket:
        settings = config(tmp_path / "run", guarantee, kind="ray", workers=2, storage=bucket.url)
        found = release_of(settings, saboteur)
        # What is left is Arrow's empty mark of a folder.
        assert len(bucket.written) > 10 and not any(bucket.objects.values())
    assert found == serial[guarantee] and saboteur.stages >= STAGES[guarantee]
    assert not (tmp_path / "run/private/work").exists()


def test_a_bucket_that_refuses_ends_the_run_with_one_message(tmp_path: Path, nodes: Nodes) -> None:
    nodes.have(1)
    with serve_bucket() as bucket:
        settings = ExecutorConfig(kind="ray", workers=1, storage=bucket.url)
        executor = RayExecutor(settings, tmp_path, threads=1)
        bucket.refuses = True
        try:
            with pytest.raises(RunDirError, match=r"cannot write to s3://bucket/texts/rpsg-"):
                list(executor.compute(Spec(kind="embedder", name="hash"), ['["a text"]']))
        finally:
            bucket.refuses = False
            executor.close()


def test_a_node_that_is_lost_changes_nothing(tmp_path: Path, nodes: Nodes, serial: dict[str, bytes]) -> None:
    nodes.have(3)
    saboteur = Saboteur(nodes.lose, only="keys, first")
    found = release_of(config(tmp_path / "run", "end-to-end", kind="ray", workers=2), saboteur)
    assert found == serial["end-to-end"] and saboteur.stages == {"keys, first"}


def test_the_chunks_of_a_worker_that_has_no_place_any_more_go_to_another(
    tmp_path: Path, nodes: Nodes, serial: dict[str, bytes]
) -> None:
    nodes.have(2)
    saboteur = Saboteur(lambda: nodes.have(1), only="write, first")
    with within(60):
        found = release_of(config(tmp_path / "run", "selection", kind="ray", workers=2), saboteur)
    assert found == serial["selection"] and saboteur.stages


def test_more_workers_than_there_is_room_for_wait_and_hold_nothing_up(
    tmp_path: Path, nodes: Nodes, serial: dict[str, bytes]
) -> None:
    nodes.have(1)
    with within(60):
        found = release_of(config(tmp_path / "run", "end-to-end", kind="ray", workers=3))
    assert found == serial["end-to-end"]


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


def test_a_chunk_that_costs_every_worker_its_life_ends_the_run(
    tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_ray, "_MOST_LOSSES", 2)
    nodes.have(1)
    executor = RayExecutor(ExecutorConfig(kind="ray", workers=1), tmp_path, threads=1)
    ask = executor._ask

    def ask_and_kill(*call: object) -> object:
        Timer(0.3, kill_a_worker).start()
        return ask(*call)  # type: ignore[arg-type]

    monkeypatch.setattr(executor, "_ask", ask_and_kill)
    try:
        with within(60), pytest.raises(ModelError, match="2 Ray workers were lost over the same chunk"):
            list(executor.compute(Spec(kind="embedder", name="hash"), [json.dumps(["a b c"] * 400_000)]))
    finally:
        executor.close()


def test_what_a_killed_run_left_is_removed_and_never_taken_for_a_result(tmp_path: Path, nodes: Nodes) -> None:
    nodes.have(1)
    (tmp_path / "work/0123").mkdir(parents=True)
    (tmp_path / "work/0123/1-0.json").write_text("a chunk of private texts")
    executor = RayExecutor(ExecutorConfig(kind="ray", workers=1), tmp_path, threads=1)
    (here,) = (tmp_path / "work").iterdir()
    assert here.name != "0123" and not list(here.iterdir())
    assert stat.S_IMODE(here.stat().st_mode) == stat.S_IMODE(here.parent.stat().st_mode) == 0o700
    executor.close()
    assert not (tmp_path / "work").exists()


class Failing:
    name, trust = "failing", "local"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def embed(self, _: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "told", "written"),
    [
        (ModelError("full: a private text"), "ModelError", "full: a private text"),
        (ValueError("a private text"), "a bug: ValueError", ""),
        (OSError(errno.ENOSPC, "a private text"), "OSError: No space left on device", ""),
    ],
)
def test_what_an_error_says_is_not_told_to_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str, written: str
) -> None:
    monkeypatch.setattr(Spec, "load", lambda _: Failing(error))
    (tmp_path / "1-0.json").write_text('["a private text"]')
    worker = RayWorker(str(tmp_path))
    assert worker.compute(Spec(kind="embedder", name="failing"), "1-0") == told
    why = tmp_path / "1-0.why"
    assert (why.read_text() if why.exists() else "") == written
    assert worker.compute(Spec(kind="embedder", name="failing"), "1-1") == "no chunk"


def test_a_full_disk_is_told(tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    nodes.have(1)
    executor = RayExecutor(ExecutorConfig(kind="ray", workers=1), tmp_path, threads=1)
    monkeypatch.setattr(exchange, "write_text", full)
    try:
        with pytest.raises(RunDirError, match=r"No space left on device.*free some space"):
            list(executor.compute(Spec(kind="embedder", name="hash"), ['["a text"]']))
    finally:
        executor.close()


def test_another_version_on_a_node_is_refused(
    tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.have(1)
    executor = RayExecutor(ExecutorConfig(kind="ray", workers=1), tmp_path, threads=1)
    monkeypatch.setattr(executor_ray, "installed_version", lambda: "0.0.1")
    try:
        with pytest.raises(ConfigError, match=r"has rpsg .*, and this is 0.0.1: install one version"):
            executor.describe(Spec(kind="embedder", name="hash"))
    finally:
        executor.close()


BY_ADDRESS = """
import sys
from pathlib import Path
from rpsg.endpoints import ExecutorConfig
from rpsg.errors import RpsgError
from rpsg.executor import Spec
from rpsg.executor_ray import RayExecutor

spec = Spec(kind="embedder", name="hash")
try:
    config = ExecutorConfig(kind="ray", workers=1, address=sys.argv[2])
    executor = RayExecutor(config, Path(sys.argv[1]), threads=1)
except RpsgError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(len(list(executor.compute(spec, ['["a"]', '["b"]']))))
executor.close()
print([path.name for path in Path(sys.argv[1]).iterdir()])
"""


def test_a_cluster_is_found_by_its_address_and_left_running(tmp_path: Path, nodes: Nodes) -> None:
    def ask(address: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BY_ADDRESS, str(tmp_path), address]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    nodes.have(1)
    for _ in range(2):
        done = ask(nodes.address)
        assert done.stdout.splitlines() == ["2", "[]"], done.stderr
    assert 'pip install "ray[client]"' in ask("ray://127.0.0.1:1").stderr
    assert "ModelError: no Ray cluster at executor.address" in ask("127.0.0.1:1").stderr


OWN_CLUSTER = """
import json, os, sys, psutil
from pathlib import Path
from rpsg.endpoints import ExecutorConfig
from rpsg.executor import Spec
from rpsg.executor_ray import RayExecutor

private, heard = Path(sys.argv[1]), set()
for _ in range(2):
    executor = RayExecutor(ExecutorConfig(kind="ray", workers=1), private, threads=1)
    executor.describe(Spec(kind="embedder", name="hash"))
    family = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    sockets = [item for item in psutil.net_connections("inet") if item.status == "LISTEN"]
    heard |= {item.laddr.ip for item in sockets if item.pid in family}
    mode = oct((private / "ray").stat().st_mode)
    executor.close()
left = [path.name for path in private.iterdir()]
print(json.dumps([sorted(heard), mode, left, "RAY_AUTH_TOKEN" in os.environ]))
"""


def test_a_cluster_of_our_own_is_reached_from_this_machine_only_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Of a folder for temporary files with a long name Ray's sockets are not in reach: /tmp is taken.
    home, scratch = tmp_path / "home", tmp_path / "temporary"
    for folder in (scratch, private := tmp_path / "private"):
        folder.mkdir()
    before = set(Path("/tmp").glob("rpsg-ray-*"))
    done = subprocess.run(
        [sys.executable, "-c", OWN_CLUSTER, str(private)], check=False, capture_output=True, text=True,
        timeout=120, env={**environment, "HOME": str(home), "TMPDIR": str(scratch)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    heard, mode, left, is_token_left = json.loads(done.stdout.splitlines()[-1])
    assert heard and {ip.removeprefix("::ffff:") for ip in heard} == {"127.0.0.1"}
    assert mode.endswith("700") and left == [] and not is_token_left
    assert not list(scratch.glob("rpsg-ray-*")) and not (home / ".ray").exists()
    assert not set(Path("/tmp").glob("rpsg-ray-*")) - before


def test_where_ray_was_imported_before_it_would_listen_on_the_network(tmp_path: Path) -> None:
    code = f"import ray\n{BY_ADDRESS}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), ""], check=False, capture_output=True, text=True
    )
    assert "ConfigError: executor.kind: ray: Ray was imported before the run began" in done.stderr


def test_a_cluster_of_our_own_is_started_and_ended(tmp_path: Path) -> None:
    """As a user types it, without a cluster."""
    data = sample_path("posts_train.jsonl")
    options = {
        "generation.threads": 1, "models.embed": "hash", "models.sentiment": "null",
        "refine.pii.enabled": "false", "refine.nll.enabled": "false", "evaluate.enabled": "false",
    }  # fmt: skip
    settings = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    command = [
        sys.executable,
        "-m",
        "rpsg",
        "run",
        str(data),
        "--executor",
        "ray",
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
    left = [process for process in psutil.process_iter(["name"]) if process.pid not in before]
    assert not [item.info["name"] for item in left if "ray" in (item.info["name"] or "")]
