"""What became of the cells of a benchmark, as its folder keeps it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from rpsg.bench.matrix import Cell, name_of
from rpsg.errors import RunDirError
from rpsg.rundir import write_json
from rpsg.scores import Better

State = Literal["done", "short", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a cell.

    Attributes:
        data: name of the data set.
        method: name in the tables.
        model: that wrote.
        epsilon: asked for.
        n: texts asked for.
        seed: of run and split.
        state: short when fewer texts were released than asked for; its figures would not compare.
        reason: why it is not done, or what could not be computed; never a text.
        card_epsilon: of the released texts as a whole, as the card has it; None where none is finite.
        verdict: of the audit; empty where there was none.
        made_of: see `check_bench`.
        figures: family and name of a figure, joined by ": ", to its value.
        better: figure to its good direction.
        costs: seconds, model calls and tokens for 1,000 texts; none where the run was stopped and went on.
    """

    data: str
    method: str
    model: str
    epsilon: float | None
    n: int
    seed: int
    state: State
    reason: str
    card_epsilon: float | None
    figures: Mapping[str, float]
    costs: Mapping[str, float]
    better: Mapping[str, Better] = field(default_factory=dict)
    verdict: str = ""
    made_of: str = ""


_KINDS = TypeAdapter(Outcome)


def make_folder(folder: Path) -> None:
    """Makes a benchmark's folder, readable by its owner only.

    Raises:
        RunDirError: it cannot be made, or holds something else.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "cells").is_dir():
            raise RunDirError(f"{folder} is not empty and holds no benchmark; name another folder")
        for name in ("cells", "costs"):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise RunDirError(f"{folder} cannot be made a folder: {error.strerror}; name another") from None


def read_outcomes(folder: Path, made_of: Mapping[str, str]) -> dict[str, Outcome]:
    """Returns what became of the cells that were run.

    Args:
        folder: of the benchmark.
        made_of: what `check_bench` returned.

    Raises:
        RunDirError: one is made of something else, or not of this version.
    """
    found = {name: read_outcome(folder, name) for name in made_of}
    kept = {name: outcome for name, outcome in found.items() if outcome is not None}
    other = [name for name, outcome in kept.items() if outcome.made_of != made_of[name]]
    if other:
        raise RunDirError(
            f"{folder} holds {len(other)} cells of a benchmark with other settings, data, judges or version, "
            f"such as {other[0]}; use another output folder"
        )
    return kept


def read_outcome(folder: Path, name: str) -> Outcome | None:
    """Returns what became of a cell; None when it was not run yet.

    Raises:
        RunDirError: its file is not one of this version.
    """
    path = folder / "cells" / f"{name}.json"
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        found = Outcome(**json.loads(text, parse_constant=_refuse))
        _KINDS.validate_json(text, strict=True)
        if name_of(found) != name:
            raise ValueError
        return found
    except (TypeError, ValueError, OSError):
        raise RunDirError(f"{path} is not of this version of rpsg; use another output folder") from None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no figure")


def keep_outcome(folder: Path, cell: Cell, outcome: Outcome, made_of: str) -> Outcome:
    """Writes what became of a cell, with what it was made of; returns both."""
    kept = replace(outcome, made_of=made_of)
    write_json(folder / "cells" / f"{cell.name}.json", asdict(kept))
    return kept
