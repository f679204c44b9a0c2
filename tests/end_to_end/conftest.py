"""Collects the figures of the full-size proofs into docs/proofs.json."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PROOFS = ROOT / "docs/proofs.json"


@pytest.fixture(scope="session")
def record_proof() -> Iterator[Callable[..., None]]:
    """Keeps what a proof measured; written when the last one is done, also when one failed."""
    found: dict[str, Any] = {}

    def record(name: str, figures: dict[str, Any], *, missed: list[str]) -> None:
        found[name] = {"holds": not missed, "missed": missed, "figures": figures}
        print(f"\n{name}: {json.dumps(figures, indent=2)}\nmissed: {missed or 'nothing'}")

    yield record
    before = json.loads(PROOFS.read_text(encoding="utf-8"))["proofs"] if PROOFS.exists() else {}
    now = {name: {**proof, **_provenance()} for name, proof in found.items()}
    PROOFS.write_text(json.dumps({"proofs": {**before, **now}}, indent=2) + "\n", encoding="utf-8")


def _provenance() -> dict[str, Any]:
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return {
        "command": "make prove",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.stdout.strip() + (" with changes" if changed.stdout.strip() else ""),
    }
