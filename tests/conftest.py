"""Shared fixtures. No test may open a socket beyond this machine; proofs write docs/proofs.json."""

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROOFS = ROOT / "docs/proofs.json"
_LOCAL = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuses connections to anything but loopback and Unix sockets."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in _LOCAL:
            raise AssertionError(f"a test tried to connect to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps chain heads and budgets of tests out of the user's state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


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
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.stdout.strip() + (" with changes" if changed.stdout.strip() else ""),
    }
