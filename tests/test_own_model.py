"""The page that builds a model of one's own, followed to the letter."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from rpsg.data import sample_path
from test_cli import FAKE

PAGE = Path(__file__).parents[1] / "docs/own-model.md"


def test_the_page_builds_a_package_that_a_run_uses(tmp_path: Path) -> None:
    blocks = re.findall(r"`(\S+)`\n\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["pyproject.toml", "rpsg_parrot.py"]
    package, site = tmp_path / "package", tmp_path / "site"
    package.mkdir()
    for name, content in blocks:
        (package / name).write_text(content)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(site), str(package)], check=True, timeout=120)
    posts = sample_path("posts_test.jsonl")
    command = [sys.executable, "-m", "rpsg", "run", str(posts), "-n", "4", "-o", "run", "--quiet", *FAKE]
    command += ["--model", "parrot", "--set", "refine.similarity.enabled=false"]
    # A parrot copies: what it says of private posts must be refused, and is.
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "run/release/privacy_card.json").read_text())
    assert {flow["model"] for flow in card["inputs"]["data_flow"] if flow["task"] == "write"} == {"parrot"}
    assert (tmp_path / "run/release/synthetic.jsonl").read_text() == ""
