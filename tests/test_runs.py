"""Runs seen from outside: listed, followed, kept from one another, purged; and no network at all."""

import json
import multiprocessing
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rpsg import cli, offline, pipeline
from rpsg.config import RunConfig
from rpsg.data import read_corpus
from rpsg.errors import ConfigError, RunDirError
from rpsg.exchange import note_place, open_exchange
from rpsg.options import model_options
from rpsg.privacy.budget import Budget
from rpsg.rundir import RunDir
from rpsg.runstate import find_runs, purge, read_state
from rpsg.types import Progress
from s3_server import serve_bucket
from test_cli import FAKE, POSTS, call


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def small_run(folder: str, *more: str) -> int:
    return call("run", POSTS, "-n", "4", "-o", folder, *FAKE, *more)


class Killed(BaseException):
    pass


def stop_at(stage: str) -> None:
    def watch(step: Progress) -> None:
        if step.stage.startswith(stage) and step.done:
            raise Killed

    config = RunConfig.parse(
        {
            "data": {"path": str(POSTS)},
            "n": 4,
            "models": {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": None},
            "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
            "write": {"min_length": 20, "max_length": 40},
            "output": {"folder": "runs/stopped"},
        }
    )
    with pytest.raises(Killed):
        pipeline.run(config, pipeline.load_corpus(config), on_progress=watch)


def test_runs_are_listed_with_what_became_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert small_run("runs/done", "--quiet") == 0
    stop_at("rewrite")
    states = {state.folder.name: state for state in find_runs(Path("runs"))}
    assert states["done"].state == "finished" and states["stopped"].state == "stopped"
    assert states["stopped"].stage.startswith(("write", "rewrite"))
    assert 0 < states["stopped"].done <= states["stopped"].total
    assert call("runs") == 0
    shown = capsys.readouterr().out
    assert "runs/done" in shown and "finished" in shown and "stopped" in shown
    assert call("status", "runs/stopped") == 0
    assert "rpsg resume runs/stopped" in capsys.readouterr().out
    assert call("runs", "--json") == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["finished", "stopped"]
    assert call("resume", "runs/stopped", "--quiet") == 0
    assert read_state(Path("runs/stopped")).state == "finished"


def test_a_budget_made_meanwhile_does_not_keep_a_run_from_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    stop_at("rewrite")
    Budget.create(read_corpus(POSTS), name="posts", epsilon=5.0, delta=1e-6).close()
    assert call("resume", "runs/stopped") == 2
    assert "--outside-budget" in capsys.readouterr().err
    assert call("resume", "runs/stopped", "--outside-budget", "-q") == 0
    assert read_state(Path("runs/stopped")).state == "finished"
    card = json.loads(Path("runs/stopped/release/privacy_card.json").read_text())
    assert card["inputs"]["outside_budget"] == 1


def test_what_is_noted_for_other_terminals_holds_counts_only() -> None:
    assert small_run("runs/done", "--quiet") == 0
    noted = RunDir.open(Path("runs/done")).read_progress()
    assert set(noted) == {"time", "stage", "done", "total", "n_tokens", "n_new", "seconds", "cost"}
    assert oct((Path("runs/done/private/progress.json")).stat().st_mode)[-3:] == "600"


def hold(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    with RunDir.open(Path(folder)).working():
        ready.set()
        multiprocessing.Event().wait()


def test_a_second_process_is_kept_off_and_a_killed_one_keeps_nobody_off() -> None:
    stop_at("rewrite")
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=("runs/stopped", ready))
    other.start()
    try:
        assert ready.wait(30)
        assert read_state(Path("runs/stopped")).state == "running"
        assert call("resume", "runs/stopped") == 2
        with pytest.raises(RunDirError, match="another process is working"):
            purge(Path("runs/stopped"))
    finally:
        other.kill()
        other.join()
    assert read_state(Path("runs/stopped")).state == "stopped"
    assert call("resume", "runs/stopped", "--quiet") == 0


def test_purge_removes_the_calls_of_a_finished_run_only(capsys: pytest.CaptureFixture[str]) -> None:
    stop_at("rewrite")
    assert call("purge", "runs/stopped") == 2
    assert "not finished" in capsys.readouterr().err
    assert Path("runs/stopped/private/calls.sqlite").exists()
    assert call("resume", "runs/stopped", "--quiet") == 0
    released = Path("runs/stopped/release/synthetic.jsonl").read_bytes()
    assert list(Path("runs/stopped/private/embeddings").iterdir())
    assert call("purge", "runs/stopped") == 0
    assert not list(Path("runs/stopped/private").glob("calls.sqlite*"))
    assert not list(Path("runs/stopped/private/embeddings").iterdir())
    assert Path("runs/stopped/private/ledger.sqlite").exists()
    assert Path("runs/stopped/release/synthetic.jsonl").read_bytes() == released
    # Going on would ask, and pay, for every call again.
    assert call("resume", "runs/stopped", "-q") == 0
    Path("runs/stopped/release/synthetic.jsonl").unlink()
    assert call("resume", "runs/stopped") == 2
    assert "removed" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["stopped", "finished", "purged"])
def test_what_a_killed_run_left_in_a_bucket_is_removed_whatever_goes_on(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    stop_at("rewrite")
    private = Path("runs/stopped/private")
    if state != "stopped":
        assert call("resume", "runs/stopped", "--quiet") == 0
    with serve_bucket() as bucket:
        note_place(private, bucket.url)
        open_exchange(bucket.url).write("1-0.json", "a private text")
        command = ["purge", "--private"] if state == "purged" else ["resume", "--quiet"]
        assert call(*command, "runs/stopped") == 0
        assert not any(bucket.objects.values())
    if state == "stopped":
        card = json.loads(Path("runs/stopped/release/privacy_card.json").read_text())
        assert card["inputs"]["data_flow"][-1]["hosts"] == ["a bucket"]


def test_a_changed_configuration_is_refused_by_the_names_of_its_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert small_run("runs/done", "--quiet") == 0
    assert small_run("runs/done", "--set", "write.temperature=0.7", "--set", "vote.survive=0.5") == 2
    assert "vote.survive, write.temperature changed" in capsys.readouterr().err


def test_a_purge_just_before_a_resume_makes_no_call_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert small_run("runs/done", "--quiet") == 0
    check = RunDir.check_not_purged

    def purge_after(self: RunDir) -> None:
        check(self)
        monkeypatch.setattr(RunDir, "check_not_purged", check)
        purge(self.root)

    monkeypatch.setattr(RunDir, "check_not_purged", purge_after)
    assert small_run("runs/done", "--quiet") == 2
    assert not list(Path("runs/done/private").glob("calls.sqlite*"))


def test_a_run_that_another_process_began_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.parse({"data": {"path": str(POSTS)}})
    begin = RunDir._begin

    def begin_twice(self: RunDir, *given: object) -> None:
        begin(self, *given)  # type: ignore[arg-type]

    first = RunDir.create(Path("runs/a"), config, fingerprint="f")
    monkeypatch.setattr(RunDir, "_begin", begin_twice)
    exists = Path.exists
    # The second looked before the first had begun.
    answers = iter([False])
    monkeypatch.setattr(
        Path, "exists", lambda self: next(answers, True) if self.name == "manifest.json" else exists(self)
    )
    monkeypatch.setattr(RunDir, "_is_unfinished", lambda _: True)
    assert RunDir.create(Path("runs/a"), config, fingerprint="f").run_id == first.run_id
    with pytest.raises(RunDirError, match="other data"):
        RunDir.create(Path("runs/a"), config, fingerprint="g")


def test_a_private_part_that_was_made_beforehand_is_closed() -> None:
    Path("runs/open/private").mkdir(parents=True)
    Path("runs/open/private").chmod(0o777)
    run = RunDir.create(Path("runs/open"), RunConfig.parse({"data": {"path": str(POSTS)}}), fingerprint="f")
    assert stat.S_IMODE(run.private.stat().st_mode) == 0o700


def test_one_odd_folder_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert small_run("runs/done", "--quiet") == 0
    for name, content in (("a", "old_key: 1\n"), ("b", "")):
        Path(f"runs/{name}/private").mkdir(parents=True)
        Path(f"runs/{name}/manifest.json").write_text("{}")
        if content:
            Path(f"runs/{name}/private/config.yaml").write_text(content)
    Path("runs/done/private/progress.json").write_text('[{"stage')
    assert call("runs") == 0
    shown = capsys.readouterr().out
    assert shown.count("unreadable") == 2 and "finished" in shown


@pytest.mark.parametrize("base", ["nowhere", "empty"])
def test_no_runs(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert call("runs", base) == (2 if base == "nowhere" else 0)
    out = capsys.readouterr()
    assert "name the one your runs are in" in out.err or "rpsg run" in out.out
    assert call("status", base) == 2


# --- one model on a server, said on the command line ------------------------------------------------


def test_options_of_a_server_become_settings() -> None:
    options = model_options("vllm:m", base_url=["http://a:1/v1"], api_key_env=None, trust="local")
    assert options == {
        "models.abstract": "vllm:m",
        "models.write": "vllm:m",
        ("endpoints", "vllm", "base_url"): ["http://a:1/v1"],
        ("endpoints", "vllm", "trust"): "local",
    }
    assert model_options(None, base_url=None, api_key_env=None, trust=None) == {
        "models.abstract": None,
        "models.write": None,
    }
    for name in (None, "smollm2-135m-instruct", "local:folder"):
        with pytest.raises(ConfigError, match="--trust: name the server's model"):
            model_options(name, base_url=None, api_key_env=None, trust="local")


def test_a_remote_model_is_kept_from_private_text(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "openai:gpt-4o-mini", "--base-url", "http://127.0.0.1:9/v1"]
    assert call("run", POSTS, "-n", "4", "-o", "runs/remote", *options) == 2
    assert not Path("runs").exists()
    assert "endpoints.openai.trust: local" in capsys.readouterr().err


def test_a_key_that_is_not_set_leaves_no_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = ["--model", "openai:gpt-4o-mini", "--trust", "local"]
    assert call("run", POSTS, "-n", "4", "-o", "runs/x", *model) == 2
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err and not Path("runs").exists()


# --- no network at all ------------------------------------------------------------------------------


def test_offline_refuses_a_model_on_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert small_run("runs/x", "--offline", "--set", "models.write=ollama:m") == 2
    assert "--offline: models.write" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_offline_opens_no_socket_over_a_whole_run(tmp_path: Path) -> None:
    # In a process of its own: what keeps sockets shut cannot be taken back.
    code = f"""
import _socket, socket, sys
old = socket.socket(type=socket.SOCK_DGRAM)
opened = []
sys.addaudithook(lambda event, given: opened.append(event) if event == "socket.connect" else None)
sys.argv = ["rpsg", "run", {str(POSTS)!r}, "-n", "4", "-o", "runs/x", "--offline", "--quiet", *{FAKE!r}]
from rpsg.cli import main
try: main()
except SystemExit as end: assert not end.code, end.code
for attempt in (lambda: socket.socket(), lambda: socket.getaddrinfo("localhost", 80),
                lambda: socket.create_connection(("127.0.0.1", 9)), lambda: _socket.socket(),
                lambda: old.connect(("127.0.0.1", 9)), lambda: old.sendto(b"x", ("127.0.0.1", 9)),
                lambda: socket.getnameinfo(("127.0.0.1", 9), 0)):
    try: attempt()
    except Exception as error: assert "--offline" in str(error), error
    else: raise SystemExit("a socket opened")
assert not opened[:-2], opened
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_state(tmp_path / "runs/x").state == "finished"


def test_a_socket_opens_without_offline() -> None:
    assert "socket.connect" in offline._SENDS
    socket.socket().close()
    assert cli.EXIT_BAD_INPUT == 2
