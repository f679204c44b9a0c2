"""Tables and lines of runs that are under way or done. Counts only."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from rpsg.runstate import RunState
from rpsg.text import reveal


def print_runs(states: Sequence[RunState], base: Path, *, as_json: bool) -> None:
    """Prints one line a run."""
    if as_json:
        print(json.dumps([_plain(state) for state in states], indent=2))
        return
    if not states:
        print(f"There is no run in {base}; start one with: rpsg run")
        return
    # A run's name is what the other commands want: it is never cut.
    name = Column("run", no_wrap=True, min_width=max(len(str(state.folder)) for state in states))
    others = (
        Column(title, overflow="fold") for title in ("state", "guarantee", "stage", "cost", "last sign")
    )
    table = Table(name, *others, box=SIMPLE_HEAD)
    for state in states:
        cost = "" if state.cost is None else f"${state.cost:.2f}"
        table.add_row(str(state.folder), state.state, state.guarantee, _stage(state), cost, _ago(state))
    Console(highlight=False).print(table)


def print_status(state: RunState, *, as_json: bool) -> None:
    """Prints how far a run is, and what it sent where."""
    if as_json:
        print(json.dumps(_plain(state), indent=2), flush=True)
        return
    parts = (state.state, state.guarantee, f"{_stage(state)} {_ago(state)}".strip())
    print(f"{state.folder}: {'; '.join(part for part in parts if part)}")
    if state.n_calls:
        cost = "cost unknown" if state.cost is None else f"${state.cost:.4f}"
        tokens = "unknown" if state.n_tokens is None else f"{state.n_tokens:,}"
        rest = f", nothing reported of {state.n_unreported:,} calls" if state.n_unreported else ""
        print(f"  {state.n_calls:,} requests, {tokens} tokens as reported{rest}, {cost}")
    for item in state.sent:
        print(f"  to {item.host}, {item.model}: {item.content} text, {item.n:,} requests")
    if state.state == "stopped":
        print(f"  Go on with: rpsg resume {state.folder}")
    print(end="", flush=True)


def print_comparison(
    columns: Sequence[str],
    groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[str]]]]],
    page: Path,
    *,
    as_json: bool,
) -> None:
    """Prints runs side by side."""
    if as_json:
        values = {name: dict(zip(columns, cells, strict=True)) for _, rows in groups for name, cells in rows}
        print(json.dumps(values, indent=2))
        return
    console = Console(highlight=False)
    for heading, rows in groups:
        if rows:
            table = Table(heading, *columns, box=SIMPLE_HEAD)
            for name, cells in rows:
                table.add_row(*(escape(reveal(cell)) for cell in (name, *cells)))
            console.print(table)
    print(f"Wrote {page}, computed from private texts: do not share it.")


def _stage(state: RunState) -> str:
    if state.state in {"unreadable", "purged"}:
        return ""
    return f"{state.stage} {state.done}/{state.total}" if state.stage else "not begun"


def _ago(state: RunState) -> str:
    if state.updated is None:
        return ""
    seconds = max(0.0, time.time() - state.updated)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _plain(state: RunState) -> dict[str, object]:
    values = asdict(state)
    sums = {"n_calls": state.n_calls, "n_tokens": state.n_tokens, "n_unreported": state.n_unreported}
    return {**values, "folder": str(state.folder), **sums}
