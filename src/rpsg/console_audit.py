"""What `rpsg audit` prints."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from rpsg.audit.finding import Finding
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
    for item in _main_figures(found.findings):
        console.print(_in_words(item), markup=False)
    console.print(
        "\n* decides. no leak: the same figure where nothing can have leaked. Distances only describe and "
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
    console.print(
        f"All {len(found.findings)} figures are in {path}, computed from private texts: do not share it.",
        markup=False,
    )


def _in_words(item: "Finding") -> str:
    parts = []
    if item.value is not None:
        interval = "" if item.low is None or item.high is None else f" ({item.low:.3g} to {item.high:.3g})"
        parts.append(f"{item.value:.3g}{interval}")
    if item.control is not None:
        parts.append(f"no leak {item.control:.3g}")
    if item.p_value is not None:
        parts.append(f"p {item.p_value:.2g}")
    return (
        f"{'*' if item.decides else ' '} {item.family}, {item.attack}, {item.statistic}: {'; '.join(parts)}"
    )


def _main_figures(findings: "Sequence[Finding]") -> "list[Finding]":
    """Returns the first figure of each attack, without those that could not be computed."""
    first: dict[tuple[str, str], Finding] = {}
    for item in findings:
        if item.value is not None or item.p_value is not None:
            first.setdefault((item.family, item.attack), item)
    return list(first.values())


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
            trial.outcome,
        )
    Console(highlight=False).print(table)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
