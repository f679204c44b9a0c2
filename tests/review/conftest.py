from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser import finished_run, open_browser, spoiled_copy

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory, "--set", "evaluate.enabled=false")


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    return spoiled_copy(finished, tmp_path, hostile=False)


@pytest.fixture
def hostile(finished: Path, tmp_path: Path) -> Path:
    return spoiled_copy(finished, tmp_path, hostile=True)


# No longer than a module: while it runs, no other test of the process may start an event loop.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    yield from open_browser()
