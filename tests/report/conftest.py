import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser import HOSTILE, LABEL, open_browser
from test_cli import FAKE, POSTS, call

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of fake models on the sample posts, with reports."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        assert call("run", POSTS, "--label-column", "topic", "-n", "24", "-o", folder, "--quiet", *FAKE) == 0
    return folder


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "one"))


@pytest.fixture
def hostile(run_folder: Path) -> Path:
    """A run whose released texts and labels try everything."""
    path = run_folder / "release/synthetic.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, text in zip(rows, HOSTILE, strict=False):
        row["text"], row["topic"] = text, LABEL
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_folder


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    yield from open_browser()
