"""What the command line shows: progress, tables, statements. It prints counts and released texts only."""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from rpsg.text import reveal
from rpsg.types import Progress as Step

if TYPE_CHECKING:
    from pathlib import Path

    from rpsg.doctor import Check
    from rpsg.evaluate.result import Evaluation
    from rpsg.llm.models import ModelInfo
    from rpsg.privacy.budget import BudgetState
    from rpsg.result import RunResult

_PLAIN_SECONDS = 10.0
# Of a metric, in signs; what is longer goes on below.
_LONGEST_NAME = 24


class ProgressView:
    """Live bars on a terminal, a line every few seconds elsewhere, nothing when silent."""

    def __init__(self, *, silent: bool) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal and not silent
        self._silent = silent
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0
        self._last_stage = ""
        self._bars = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:>12}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bars.stop()

    def show(self, step: Step) -> None:
        """Shows how far a stage is."""
        if self._live:
            self._show_bar(step)
        elif not self._silent:
            self._show_line(step)

    def _show_bar(self, step: Step) -> None:
        if step.stage not in self._tasks:
            self._tasks[step.stage] = self._bars.add_task(step.stage, total=step.total, speed="")
        self._bars.update(self._tasks[step.stage], completed=step.done, total=step.total, speed=_speed(step))

    def _show_line(self, step: Step) -> None:
        now = time.monotonic()
        finished = step.done >= step.total
        if step.stage == self._last_stage and not finished and now - self._last_line < _PLAIN_SECONDS:
            return
        self._last_line, self._last_stage = now, step.stage
        speed = _speed(step)
        # Texts that are written together end late together: what is left is not told by the first of them.
        is_known = step.done * 4 >= step.total
        left = step.seconds / step.done * (step.total - step.done) if step.done and is_known else 0.0
        rest = f", about {left:.0f} s left" if left >= 1 else ""
        print(
            f"{step.stage}: {step.done}/{step.total}{', ' + speed if speed else ''}{rest}",
            file=sys.stderr,
            flush=True,
        )


def _speed(step: Step) -> str:
    speed = f"{step.n_tokens / step.seconds:.0f} tok/s" if step.n_tokens and step.seconds > 0 else ""
    return " ".join(part for part in (speed, "" if step.cost is None else f"${step.cost:.2f}") if part)


def print_budgets(budgets: "Sequence[BudgetState]", *, as_json: bool) -> None:
    """Prints data budgets and what was spent."""
    if as_json:
        from rpsg.privacy.budget import to_json

        print(to_json(budgets))
        return
    if not budgets:
        print("There is no data budget; make one with: rpsg budget init DATA --epsilon 8 --delta 1e-6")
        return
    table = Table("data", "spent epsilon", "of", "at delta", "runs", "outside", box=SIMPLE_HEAD)
    for item in budgets:
        spent = f"{item.spent_epsilon:.4g}"
        table.add_row(
            item.name, spent, f"{item.epsilon:g}", f"{item.delta:g}", str(item.n_runs), str(item.n_outside)
        )
    Console(highlight=False).print(table)


def print_result(result: "RunResult", *, quiet: bool, as_json: bool, more: Sequence[str] = ()) -> None:
    """Prints the run's table, five examples, the privacy statement, the folder, and lines that follow it."""
    if as_json:
        print(json.dumps(result.summary(), indent=2))
        return
    if quiet:
        return
    console = Console(highlight=False)
    table = Table(title="What happened", show_header=False)
    for name, value in result.figures():
        table.add_row(name, value)
    console.print(table)
    for example in result.examples(5):
        labels = ", ".join(f"{name}: {value}" for name, value in example.labels.items()) or "synthetic text"
        # A terminal obeys what hides in a text.
        console.print(f"\n{reveal(labels)}", style="bold", markup=False)
        console.print(reveal(example.text), markup=False)
    console.print(f"\n[bold]Privacy:[/bold] {result.statement}\n")
    for note in result.notes:
        console.print(f"Note: {note}", markup=False)
    console.print(f"Release: {result.folder / 'release'}", markup=False, soft_wrap=True)
    for line in more:
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"Run folder: {result.folder} (its private/ part must not be shared)", markup=False)


def print_evaluation(result: "Evaluation", folder: "Path", *, quiet: bool, as_json: bool) -> None:
    """Prints the figures, the notes and where they were written."""
    if as_json:
        print(json.dumps(result.document(), indent=2))
        return
    if quiet:
        return
    # Narrow enough for 80 columns, with names whole: they are what is looked up.
    longest = max((len(word) for _, score in result.scores for word in score.name.split()), default=0)
    name = Column("metric", overflow="fold", min_width=min(longest, _LONGEST_NAME))
    table = Table(
        name, "value", "95 % interval", "real", "baseline", "better", "n", box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    reasons, before = defaultdict(list), ""
    for family, score in result.scores:
        if score.value is None:
            reasons[score.reason].append(score.name)
        if family != before:
            table.add_row(f"[bold]{escape(family)}[/bold]")
            before = family
        table.add_row(
            escape(reveal(score.name)),
            _figure(score.value),
            f"{_figure(score.low, 3)} to {_figure(score.high, 3)}" if score.low is not None else "",
            _figure(score.reference),
            _figure(score.baseline),
            "as real" if score.better == "reference" else score.better,
            str(score.n),
        )
    lines = [f"not computable ({reason}): {', '.join(names)}" for reason, names in reasons.items()]
    console = Console(highlight=False)
    console.print(table)
    for line in (*lines, *(f"note: {note}" for note in result.notes)):
        console.print(line, markup=False)
    console.print(
        f"real: what as many real texts get. Figures say nothing about privacy.\n"
        f"Written to {folder / 'metrics.json'}, computed from private texts: do not share it.",
        markup=False,
    )


def _figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def print_models(models: "Sequence[ModelInfo]", *, as_json: bool) -> None:
    """Prints the list of models."""
    if as_json:
        print(json.dumps([asdict(model) for model in models], indent=2))
        return
    # Narrow enough for 80 columns; --json has the whole checksums.
    table = Table(
        "name", "kind", "licence", "MB", "sha256", "runs", "here", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for model in models:
        if model.sha256:
            table.add_row(
                model.name,
                model.kind,
                model.licence,
                f"{model.size_bytes / 1e6:.0f}",
                model.sha256[:12],
                model.trust,
                "yes" if model.available else "no",
            )
    console = Console(highlight=False)
    console.print(table)
    for model in models:
        kinds = "" if model.sha256 else f" ({model.kind})"
        if model.note:
            console.print(f"{model.name}{kinds}: {model.note}", markup=False)


def print_checks(checks: "Sequence[Check]") -> None:
    """Prints what is there, what is missing, and the command that fixes it."""
    for check in checks:
        print(f"{'ok     ' if check.ok else 'MISSING'}  {check.name}: {check.found}")
        if not check.ok:
            print(f"         fix: {check.fix}")
