"""What a run would do, printed before it is started."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from rpsg.config import RunConfig
from rpsg.methods import find_method
from rpsg.pipeline import label_warnings, statement_of
from rpsg.plan import Plan, PlannedLine
from rpsg.plan_calls import (
    EMBEDDED_TOKENS_PER_SECOND,
    TRAIN,
    TRAINED_TOKENS_PER_SECOND,
    PlannedCalls,
    has_half_precision,
    shortest_seconds,
    usual_seconds,
)
from rpsg.types import PrivateCorpus

# Waiting processes a core from which on threads hinder one another more than they help.
_BUSY = 1.5


def print_statement(config: RunConfig, corpus: PrivateCorpus, plan: Plan) -> None:
    """Prints the privacy statement and what is about to happen."""
    console = Console(highlight=False)
    console.print(f"[bold]Privacy:[/bold] {statement_of(config, corpus)}\n", soft_wrap=False)
    for line in [*plan_lines(config, corpus, plan), *label_warnings(config, corpus)]:
        console.print(line)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    is_free = config.generation.threads is None and os.environ.get("OMP_NUM_THREADS") != "1"
    if is_free and load > _BUSY * cores:
        console.print(
            f"this machine is busy (load {load:.0f}, {cores} cores): models of several threads wait for one "
            "another here; a new run with --set generation.threads=1 is likely quicker"
        )
    console.print()


def plan_lines(config: RunConfig, corpus: PrivateCorpus, plan: Plan) -> list[str]:
    """Says in words what a run would do."""
    warnings = [f"warning: {text}" for text in corpus.warnings]
    if config.write.prompt == "posts" and config.method != "copy":
        warnings.insert(0, "prompts: posts, those of a forum; write.prompt names others, for other texts")
    method = find_method(config)
    if method is not None:
        return [*method.describe(config, corpus, plan), *warnings]
    if config.guarantee == "end-to-end":
        lines = [
            f"{plan.n_wanted} synthetic texts wanted; everything that is released is decided in advance",
            f"models: {config.models.write} writes from "
            f"{'public prompts' if config.epsilon == 0 else 'what is released with noise'}, "
            f"{config.models.embed} embeds",
        ]
        return lines + warnings
    skipped = sum(corpus.skipped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in corpus.skipped.items() if count)
    lines = [
        f"{plan.n_records} records" + (f" ({skipped} rows skipped: {reasons})" if skipped else ""),
        f"{plan.n_calibration} held out to set the filters, {plan.n_pool} can be seeds",
        f"{plan.n_wanted} synthetic texts wanted, {plan.n_seeds} seeds in the first round",
        f"models: {config.models.abstract} summarises, {config.models.write} writes, "
        f"{config.models.embed} embeds",
    ]
    if not plan.filters_on:
        lines.append("too few records to calibrate the similarity and likelihood filters: both stay off")
    return lines + warnings


def print_plan(config: RunConfig, corpus: PrivateCorpus, plan: Plan, *, as_json: bool) -> None:
    """Prints the plan of a run that is not started."""
    if as_json:
        print(json.dumps({"plan": asdict(plan), "statement": statement_of(config, corpus)}, indent=2))
        return
    print_statement(config, corpus, plan)
    print("Configuration and data are fine. Nothing was spent.")


def print_ledger_plan(
    config: RunConfig,
    corpus: PrivateCorpus,
    lines: Sequence[PlannedLine],
    calls: Sequence[PlannedCalls],
    *,
    notes: Sequence[str] = (),
    as_json: bool,
) -> None:
    """Prints the ledger of a run that is not started, and the calls it would make."""
    if as_json:
        page = {
            "statement": statement_of(config, corpus),
            "releases": [asdict(line) for line in lines],
            "notes": list(notes),
            "calls": [asdict(task) for task in calls],
            "seconds_at_least": shortest_seconds(config, calls),
            "seconds_on_two_cores": usual_seconds(calls),
        }
        print(json.dumps(page, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"[bold]Privacy:[/bold] {statement_of(config, corpus)}\n")
    table = Table("release", "cost", "signal", box=SIMPLE_HEAD)
    for line in lines:
        table.add_row(line.release, line.cost, line.signal)
    console.print(table)
    _print_calls(console, config, calls)
    for line in lines:
        if line.warning:
            console.print(f"warning: {line.release}: {line.warning}", markup=False)
    for note in notes:
        console.print(f"note: {note}", markup=False)
    print("Nothing was spent.")


def _print_calls(console: Console, config: RunConfig, calls: Sequence[PlannedCalls]) -> None:
    table = Table(
        "calls of",
        Column("model", overflow="fold"),
        "calls",
        "tokens read",
        "tokens written",
        "US dollars",
        box=SIMPLE_HEAD,
    )
    for task in calls:
        price = "price unknown" if task.cost is None else f"{task.cost:.2f}"
        if task.cost is not None and not task.price_confirmed:
            price += ", price not confirmed"
        table.add_row(
            task.task,
            task.model,
            f"{task.n_calls:,}",
            f"{task.n_prompt_tokens:,}",
            f"{task.n_tokens:,}",
            price if task.on_server else "this machine",
        )
    console.print(table)
    seconds = shortest_seconds(config, calls)
    least = "" if seconds is None else f" Your limits a minute make it take at least {seconds / 60:.0f} min."
    usual = usual_seconds(calls)
    if usual is not None:
        least += (
            f" On two quiet cores that is about {max(1, round(usual / 60)):,} min, at the "
            f"{EMBEDDED_TOKENS_PER_SECOND} tokens a second of the demo"
            + ("." if has_half_precision() else " or a third of that, as this processor has no bfloat16.")
        )
        if any(task.task == TRAIN for task in calls):
            least += f" Training reads {TRAINED_TOKENS_PER_SECOND} tokens a second."
    console.print(
        "Calls are those of the first round, tokens are estimates; texts that are rejected are written "
        f"again, up to a bound.{least}"
    )
