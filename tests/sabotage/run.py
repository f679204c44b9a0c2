"""Breaks a copy of the package on purpose, patch by patch; the test that a patch names must turn red.

The first line of a patch reads `test: NODE_ID`, the second says what it breaks. `make sabotage` runs all.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ASSERTIONS = ("assert", "AssertionError", "Failed: DID NOT RAISE")


class Broken(Exception):
    """A sabotage cannot be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """A patch, the test that must notice it, and what it breaks."""

    path: Path
    test: str
    breaks: str

    @classmethod
    def read(cls, path: Path) -> "Sabotage":
        first, second = path.read_text(encoding="utf-8").splitlines()[:2]
        if not first.startswith("test: "):
            raise Broken(f"{path.name}: the first line must read `test: NODE_ID`")
        return cls(path=path, test=first.removeprefix("test: "), breaks=second)


def run_tests(tests: list[str], source: Path, report: Path) -> tuple[int, list[str]]:
    """Runs tests against a copy of the package; returns the exit status and the failures' messages."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    env = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    where = [sys.executable, "-c", "import rpsg; print(rpsg.__file__)"]
    used = subprocess.run(where, env=env, capture_output=True, text=True, check=True).stdout
    if not Path(used.strip()).is_relative_to(source):
        raise Broken(f"the tests would import {used.strip()}, not the copy in {source}")
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    if not report.exists():
        raise Broken(f"pytest wrote no report: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.returncode, [str(item.get("message")) for item in ET.parse(report).iter("failure")]


def apply(patch: Path, folder: Path) -> None:
    # Without the ceiling git would look for a repository above, and skip every file.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", "-p1", str(patch)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Broken(f"{patch.name} no longer applies: {done.stderr.strip()}")


def copy_source(folder: Path) -> Path:
    copytree(ROOT / "src", folder / "src", ignore=ignore_patterns("__pycache__"))
    return folder / "src"


def judge(sabotage: Sabotage) -> str:
    """Returns "" when the named test turned red because of an assertion, else what happened."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        source = copy_source(folder)
        apply(sabotage.path, folder)
        status, messages = run_tests([sabotage.test], source, folder / "report.xml")
    if status == 0:
        return "SURVIVED: its test stays green"
    if status != 1 or not any(message.startswith(ASSERTIONS) for message in messages):
        return f"NO VERDICT: its test fails, but by no assertion (pytest {status}): {messages[:1]}"
    return ""


def check_green(sabotages: list[Sabotage]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        tests = sorted({sabotage.test for sabotage in sabotages})
        status, messages = run_tests(tests, copy_source(folder), folder / "report.xml")
    if status:
        raise Broken(f"without a sabotage the tests must be green (pytest {status}): {messages}")


def main() -> int:
    sabotages = [Sabotage.read(path) for path in sorted(HERE.glob("*.patch"))]
    check_green(sabotages)
    n_caught = 0
    for sabotage in sabotages:
        problem = judge(sabotage)
        n_caught += not problem
        print(f"{problem or 'caught'}: {sabotage.path.stem}: {sabotage.breaks} [{sabotage.test}]", flush=True)
    print(f"{n_caught} of {len(sabotages)} sabotages caught")
    return 0 if n_caught == len(sabotages) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Broken as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
