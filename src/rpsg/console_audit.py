"""What `rpsg audit` prints."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from rpsg.audit.result import Audit
    from rpsg.audit.selftest import Trial


def print_audit(found: "Audit", path: "Path", *, quiet: bool, as_json: bool) -> None:
    """Prints the verdict, what it rests on, every figure, and where they were written."""
    if as_json:
        print(json.dumps(found.document(), indent=2))
        return
    if quiet:
        return
    console = Console(highlight=False)
    table = Table("attack", "figure", "value", "95 % interval", "no leak", "p", box=SIMPLE_HEAD)
    for item in found.findings:
        if item.value is None and item.p_value is None:
            continue
        table.add_row(
            f"{item.family}: {item.attack}{' *' if item.decides else ''}",
            item.statistic,
            _figure(item.value),
            "" if item.low is None or item.high is None else f"{item.low:.3f} to {item.high:.3f}",
            _figure(item.control),
            "" if item.p_value is None else f"{item.p_value:.2g}",
        )
    console.print(table)
    console.print(
        "* decides. no leak: the same figure where nothing can have leaked. Distances are a description and "
        "do not measure privacy.",
        markup=False,
    )
    control = found.control
    console.print(
        f"Control, words alone without the release: AUC {control.auc:.3f}, p = {control.p_value:.2g} (the "
        "split is fair).",
        markup=False,
    )
    for line in (*(f"note: {note}" for note in found.notes), f"note: {found.relation}"):
        console.print(line, markup=False)
    console.print(f"\nVerdict: {found.verdict.word}", style="bold", markup=False)
    for reason in found.verdict.reasons:
        console.print(f"  {reason}", markup=False)
    console.print(f"Written to {path}, computed from private texts: do not share it.", markup=False)


def print_trials(trials: "Sequence[Trial]", *, as_json: bool) -> None:
    """Prints what the audit said of releases with known leaks."""
    if as_json:
        rows = [
            {
                "release": trial.name,
                "leaks": trial.leaks,
                "verdict": trial.verdict,
                "p_smallest_adjusted": trial.p_smallest,
                "found_by": list(trial.found_by),
                "passed": trial.passed,
            }
            for trial in trials
        ]
        print(json.dumps(rows, indent=2))
        return
    table = Table("release", "leaks", "verdict", "smallest p", "", box=SIMPLE_HEAD)
    for trial in trials:
        table.add_row(
            trial.name,
            "yes" if trial.leaks else "no",
            trial.verdict,
            _figure(trial.p_smallest),
            "right" if trial.passed else "WRONG",
        )
    Console(highlight=False).print(table)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
