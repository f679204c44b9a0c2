"""The table of what canaries showed. Figures and counts only."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rpsg.audit.finding import Finding
from rpsg.audit.lower_bounds import Power
from rpsg.audit.verdict import Verdict


def print_findings(
    findings: Sequence[Finding], verdict: Verdict, powers: Sequence[Power], *, as_json: bool
) -> None:
    """Prints one line a finding, how the bounds were found, what could be shown at best, the verdict."""
    if as_json:
        rows = [asdict(finding) for finding in findings]
        power = [asdict(item) for item in powers]
        print(json.dumps({"findings": rows, "power": power, "verdict": asdict(verdict)}, indent=2))
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
    best = "; ".join(f"{item.m:,}: {item.one_run:.1f} / {item.two_sided:.1f}" for item in powers)
    console.print(
        f"Largest epsilon that so many canaries can show, one run / two-sided: {best}. A bound of 0 means "
        "that these attacks showed nothing; other attacks may.",
        markup=False,
    )
    console.print(f"\nVerdict: {verdict.word}", style="bold", markup=False)
    for reason in verdict.reasons:
        console.print(f"  {reason}", markup=False)


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
