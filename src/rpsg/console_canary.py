"""The table of what canaries showed. Figures and counts only."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rpsg.audit.finding import Finding


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Prints one line a finding, and how the lower bounds were found."""
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    table = Table("attack", "statistic", "value", "95 % interval", "p", "in", "out", box=SIMPLE_HEAD)
    for item in findings:
        table.add_row(
            item.attack,
            item.statistic,
            _show(item.value),
            f"{_show(item.low)} to {_show(item.high)}" if item.low is not None else "",
            _show(item.p_value) if item.p_value is not None else "",
            str(item.n_members),
            str(item.n_nonmembers),
        )
    console = Console(highlight=False)
    console.print(table)
    for item in findings:
        if item.attack == "all_kinds" or item.value is None:
            console.print(f"{item.attack}, {item.statistic}: {item.detail}", markup=False)
        if item.is_leak:
            console.print(f"The claim is refuted: {item.statistic} {_show(item.value)}", markup=False)
    console.print("A bound of 0 means that these attacks showed nothing; other attacks may.", markup=False)


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
