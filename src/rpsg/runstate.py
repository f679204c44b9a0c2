"""The runs in a folder, and how far each is; read from their files, while another process may write them."""

import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rpsg.errors import RpsgError, RunDirError
from rpsg.exchange import clear_left
from rpsg.llm.calls import Sent, Usage, read_sent, read_usage
from rpsg.llm.meter import load_prices
from rpsg.rundir import RunDir
from rpsg.staging import leftovers, remove_leftover, remove_tree

State = Literal["running", "stopped", "finished", "purged", "unreadable"]
# A folder of runs holds them at most so deep.
_DEPTH = 2
_PRIVATE_GONE = "private-purged"
_PURGED_PREFIX = ".private-"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """How far a run is. Counts only.

    Attributes:
        folder: the run folder.
        state: finished when its release is written; running while a process works on it; purged when its
            private part was removed; unreadable when its files are not those of this version.
        guarantee: its method where that is not RPSG, its guarantee, and epsilon where that has a meaning.
        n_wanted: texts asked for; None for the default share of the records.
        stage: the last one begun; "" before the first.
        done: items of it finished.
        total: items of it.
        updated: when that was noted, in seconds since 1970; None before the first stage.
        usage: tokens a model on a server used, as the server reported them.
        cost: US dollars for them; None where a price is unknown, a server reports nothing, or nothing was
            called.
        sent: what was sent where.
    """

    folder: Path
    state: State
    guarantee: str
    n_wanted: int | None
    stage: str
    done: int
    total: int
    updated: float | None
    usage: tuple[Usage, ...]
    cost: float | None
    sent: tuple[Sent, ...]

    @property
    def n_calls(self) -> int:
        """Requests that went to a server, failed ones included."""
        return sum(item.n for item in self.sent)

    @property
    def n_tokens(self) -> int | None:
        """Tokens read and written by servers, as they reported them; None where none did."""
        if self.n_unreported and not any(item.n_reported for item in self.usage):
            return None
        return sum(item.n_prompt_tokens + item.n_tokens for item in self.usage)

    @property
    def n_unreported(self) -> int:
        """Finished calls of which no server said what they used."""
        return sum(item.n_unreported for item in self.usage)


def read_state(folder: Path) -> RunState:
    """Reads one run's state; changes nothing.

    Raises:
        RunDirError: there is no run.
    """
    run = RunDir.open(folder)
    if run.is_done(_PRIVATE_GONE) and not run.private.exists():
        return _without_private(folder, "purged")
    config = run.read_config()
    # In this order: a run that ends meanwhile is finished, not stopped.
    is_running = run.is_worked_on
    finished = run.is_done("released")
    progress = run.read_progress()
    usage, sent = _read_calls(run.calls)
    prices = load_prices(config.calling.prices)
    costs = [
        prices.cost(item.model, item.n_prompt_tokens, item.n_tokens) if item.n_reported else None
        for item in usage
    ]
    priced = [cost for cost in costs if cost is not None]
    noted = progress.get("time")
    return RunState(
        folder=folder,
        state="running" if is_running else "finished" if finished else "stopped",
        guarantee=("" if config.method == "rpsg" else f"{config.method}, ")
        + config.guarantee
        + ("" if config.epsilon is None else f", epsilon {config.epsilon:g}"),
        n_wanted=config.n,
        stage=str(progress.get("stage", "")),
        done=_count(progress.get("done")),
        total=_count(progress.get("total")),
        updated=float(noted) if isinstance(noted, int | float) else None,
        usage=usage,
        cost=sum(priced) if costs and len(priced) == len(costs) else None,
        sent=sent,
    )


def find_runs(base: Path) -> list[RunState]:
    """Reads the states of the runs in a folder, by name.

    Raises:
        RunDirError: there is no such folder.
    """
    if not base.is_dir():
        raise RunDirError(f"there is no folder {base}; name the one your runs are in")
    levels = ["/".join(["*"] * depth + ["manifest.json"]) for depth in range(_DEPTH + 1)]
    found = sorted({path.parent for level in levels for path in base.glob(level)})
    return [
        _state_or_unreadable(folder)
        for folder in found
        if (folder / "private").is_dir() or (folder / "done" / _PRIVATE_GONE).exists()
    ]


def _state_or_unreadable(folder: Path) -> RunState:
    try:
        return read_state(folder)
    except (RpsgError, OSError, ValueError):
        return _without_private(folder, "unreadable")


def _without_private(folder: Path, state: State) -> RunState:
    return RunState(
        folder=folder,
        state=state,
        guarantee="",
        n_wanted=None,
        stage="",
        done=0,
        total=0,
        updated=None,
        usage=(),
        cost=None,
        sent=(),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def purge(folder: Path) -> int:
    """Removes a run's stored model calls and embeddings; returns the bytes freed.

    The ledger and the release stay.

    Raises:
        RunDirError: there is no run, a process is working on it, or it is not finished: the calls are what
            it would go on from.
    """
    run = RunDir.open(folder)
    with run.working():
        if not run.is_done("released"):
            raise RunDirError(
                f"{folder} is not finished, and its stored calls are what it would go on from: finish it "
                f"with: rpsg resume {folder}, or remove the whole folder"
            )
        kept = (f"{run.calls.name}*", f"{run.embeddings.name}/*", "shards/*/embeddings/*")
        files = [path for pattern in kept for path in run.private.glob(pattern) if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        run.mark("purged")
        for path in files:
            path.unlink()
    return size


def purge_private(folder: Path) -> int:
    """Removes all of a finished run's private part; returns the bytes freed. The release stays as it is.

    Raises:
        RunDirError: there is no run, a process works on it, it is not finished, or files cannot be removed.
    """
    run = RunDir.open(folder)
    if run.private.is_dir():
        with run.working():
            if not run.is_done("released"):
                raise RunDirError(
                    f"{folder} is not finished: finish it with: rpsg resume {folder}, "
                    "or remove the whole folder"
                )
            if not (run.private / "data.json").exists() or not run.ledger.exists():
                raise RunDirError(f"{run.private} is not a run's private part; nothing was removed")
            clear_left(run.private)
            for mark in ("purged", _PRIVATE_GONE):
                run.mark(mark)
            # Away at once, under a name that a purge that was cut off is gone on from.
            run.private.rename(folder / f"{_PURGED_PREFIX}{secrets.token_hex(4)}")
    elif not run.is_done(_PRIVATE_GONE):
        raise RunDirError(f"{folder} has no private part")
    size = 0
    for left in (*folder.glob(f"{_PURGED_PREFIX}*"), *leftovers(folder)):
        # The private part may have been a link to another disk.
        remove = remove_tree if left.name.startswith(_PURGED_PREFIX) else remove_leftover
        size += sum(path.stat().st_size for path in left.resolve().rglob("*") if path.is_file())
        try:
            remove(left)
        except OSError as error:
            raise RunDirError(f"cannot remove {left}: {error.strerror}; remove it by hand") from None
    return size


def _read_calls(path: Path) -> tuple[tuple[Usage, ...], tuple[Sent, ...]]:
    if not path.exists():
        return (), ()
    try:
        # Opened for reading: a run that works, or was killed, is left as it is.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return tuple(read_usage(db)), tuple(read_sent(db))
    except sqlite3.Error:
        # Not a file of calls yet, or one of an older version.
        return (), ()
