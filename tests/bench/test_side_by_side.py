"""`rpsg bench --jobs`: cells end as they do one after another; a process that dies is named."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_bench import config

from rpsg.bench import parallel
from rpsg.bench.cells import run_bench
from rpsg.bench.matrix import BenchConfig
from rpsg.bench.parallel import _fits, run_side_by_side

GIB = 1 << 30


def write(folder: Path, **changes: object) -> Path:
    values = config(**changes).model_dump(mode="json", exclude_unset=True)
    (folder / "bench.yaml").write_text(json.dumps(values))
    return folder / "bench.yaml"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_cells_side_by_side_end_as_cells_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_FIRST_GUESS", 0)
    # Public prompts: the one method that draws nothing in secret.
    file = write(tmp_path, methods={"public": {"method": "public"}, "copy": {"method": "copy"}})
    begun: list[str] = []
    beside = run_side_by_side(file, tmp_path / "beside", 2, on_cell=lambda cell, *_: begun.append(cell.name))
    alone = run_bench(BenchConfig.load(file), tmp_path / "alone")
    assert [item.state for item in beside] == ["done"] * 4 and len(begun) == 4
    assert [(item.method, item.seed, item.reason) for item in beside] == [
        (item.method, item.seed, item.reason) for item in alone
    ]
    assert [item.figures.keys() for item in beside] == [item.figures.keys() for item in alone]
    run_side_by_side(file, tmp_path / "beside", 2, on_cell=lambda *_: pytest.fail("a cell was run again"))


def test_a_queue_that_ends_the_command_ends_its_cells_too(tmp_path: Path) -> None:
    file = write(tmp_path, seeds=[0, 1, 2])
    code = "import sys; from rpsg.cli import main; sys.argv = ['rpsg', *sys.argv[1:]]; main()"
    command = subprocess.Popen(
        [sys.executable, "-u", "-c", code, "bench", str(file), "-o", str(tmp_path / "out"), "--jobs", "2",
         "--no-figures"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert command.stdout is not None
        assert command.stdout.readline().startswith("1/6 posts_plain")
        # Announced before it starts.
        while not (cells := psutil.Process(command.pid).children()):
            time.sleep(0.05)
        command.terminate()
        _, said = command.communicate(timeout=120)
    finally:
        command.kill()
        command.wait()
    assert command.returncode == 130 and "the same command goes on" in said
    assert cells and not any(cell.is_running() for cell in cells)


def test_a_process_that_dies_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One cell's process is killed as by the kernel when memory is short.
    killer = tmp_path / "python"
    killer.write_text(
        f'#!/bin/sh\ncase "$*" in *posts_plain*) kill -9 $$;; esac\nexec {sys.executable} "$@"\n'
    )
    killer.chmod(0o755)
    monkeypatch.setattr(parallel.sys, "executable", str(killer))
    plain, copy = run_side_by_side(write(tmp_path, n=20, seeds=[0]), tmp_path / "out", 2)
    assert plain.state == "failed" and "ended with status -9" in plain.reason
    assert copy.state == "done"


@pytest.mark.parametrize(
    ("running", "largest", "free", "fits"),
    [
        ([], 50 * GIB, 1 * GIB, True),  # one cell always runs
        ([5 * GIB], 5 * GIB, 7 * GIB, True),
        ([5 * GIB], 8 * GIB, 7 * GIB, False),  # the running one grows by 3, the next needs 8
        ([1 * GIB], 0, 10 * GIB, False),  # nothing finished yet: 6 each, 5 of them to come
        ([1 * GIB], 0, 11 * GIB, True),
    ],
)
def test_a_cell_starts_when_the_memory_holds_it(
    running: list[int], largest: int, free: int, fits: bool
) -> None:
    assert _fits(running, largest, free) is fits
