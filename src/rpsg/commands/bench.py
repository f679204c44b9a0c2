"""`rpsg bench`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rpsg.commands.options import Quiet

if TYPE_CHECKING:
    from rpsg.bench.matrix import BenchConfig, Cell
    from rpsg.bench.outcomes import Outcome

Say = Callable[[str], object]
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def bench(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="bench.yaml")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder, needed to run; a stopped benchmark goes on there."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells side by side, as far as the memory allows.")] = 1,
    cell: Annotated[str, typer.Option(metavar="NAME", help="Run this cell only, and write no tables.")] = "",
    tables: Annotated[
        bool, typer.Option("--tables", help="Write the tables of the cells that are done; run nothing.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it would ask of its models; run nothing.")
    ] = False,
    tokens_per_second: Annotated[
        float | None,
        typer.Option(min=1e-3, help="With --plan: what your models write, for an estimate of hours."),
    ] = None,
    figures: Annotated[
        bool, typer.Option(help="Draw figures; needs matplotlib, pip install 'rpsg[bench]'.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Compare methods: data sets x methods x models x epsilon x seeds, with means and intervals."""
    from rpsg.bench.matrix import BenchConfig
    from rpsg.errors import ConfigError

    config = BenchConfig.load(config_file)
    if plan:
        _print_plan(config, tokens_per_second)
        _warn(config, typer.echo)
        return
    if output is None:
        raise ConfigError("name a folder for the benchmark: -o FOLDER")
    say: Say = (lambda _: None) if quiet else typer.echo
    if cell:
        outcomes = _run(config, output, say, only=cell)
        say(f"{cell}: {', '.join(item.state for item in outcomes)}; without --cell the tables are written")
        _end(outcomes, say)
        return
    if figures:
        _check_figures()
    _warn(config, say)
    try:
        if tables:
            outcomes = _finished(config, output)
        else:
            outcomes = _run(config, output, say) if jobs == 1 else _run_jobs(config_file, output, say, jobs)
    except KeyboardInterrupt:
        typer.echo(
            "\nStopped. What is finished is kept; the same command goes on, with --tables it shows it.",
            err=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    paths = _write(outcomes, config, output, figures=figures)
    say(f"Written to {', '.join(map(str, paths))}, computed from private texts: do not share them.")
    _end(outcomes, say)


def _finished(config: "BenchConfig", folder: Path) -> "list[Outcome]":
    from rpsg.bench.check import check_bench
    from rpsg.bench.outcomes import make_folder, read_outcomes
    from rpsg.errors import RunDirError

    made_of = check_bench(config)
    outcomes = list(read_outcomes(folder, made_of).values())
    if not outcomes:
        others = (
            "cells of another benchmark only" if any(folder.glob("cells/*.json")) else "no cell that is done"
        )
        raise RunDirError(f"{folder} holds {others}; leave --tables out to run those of this one")
    # Also where somebody copied it, open to others.
    make_folder(folder)
    return outcomes


def _end(outcomes: "Sequence[Outcome]", say: Say) -> None:
    """Names the cells that are not averaged; one that failed is the command's failure, for a queue to see."""
    for item in outcomes:
        if item.state != "done":
            epsilon = "" if item.epsilon is None else f", epsilon {item.epsilon:g}"
            what = f"{item.data}, {item.method}{epsilon}, seed {item.seed}"
            say(f"{item.state}: {what}: {item.reason}")
    if any(item.state == "failed" for item in outcomes):
        raise typer.Exit(EXIT_FAILED)


def _warn(config: "BenchConfig", say: Say) -> None:
    from rpsg.bench.check import bench_warnings

    for text in bench_warnings(config):
        say(f"warning: {text}")


def _run(config: "BenchConfig", folder: Path, say: Say, only: str | None = None) -> "list[Outcome]":
    from rpsg.bench.cells import run_bench

    return run_bench(config, folder, only=only, on_cell=_announce(say))


def _run_jobs(config_file: Path, folder: Path, say: Say, jobs: int) -> "list[Outcome]":
    from rpsg.bench.parallel import run_side_by_side

    return run_side_by_side(config_file, folder, jobs, on_cell=_announce(say))


def _announce(say: Say) -> "Callable[[Cell, int, int], None]":
    def announce(item: "Cell", number: int, total: int) -> None:
        say(f"{number + 1}/{total} {item.name}")

    return announce


def _check_figures() -> None:
    """Tells before hours of work rather than after them."""
    from importlib.util import find_spec

    from rpsg.errors import ConfigError

    if find_spec("matplotlib") is None:
        raise ConfigError("figures need matplotlib: pip install 'rpsg[bench]', or say --no-figures")


def _write(
    outcomes: "Sequence[Outcome]", config: "BenchConfig", folder: Path, *, figures: bool
) -> list[Path]:
    from rpsg.bench.figures import draw_figures
    from rpsg.bench.matrix import cells_of
    from rpsg.bench.page import write_page
    from rpsg.bench.tables import make_tables
    from rpsg.bench.written import write_tables

    planned = cells_of(config)
    paths = write_tables(outcomes, config.compared_with, folder, planned=planned)
    drawn = draw_figures(make_tables(outcomes), folder / "figures") if figures else {}
    write_page(outcomes, config.compared_with, drawn, folder / "index.html", planned=planned)
    return [folder / "index.html", *paths]


def _print_plan(config: "BenchConfig", tokens_per_second: float | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from rpsg.bench.planning import plan_bench

    planned = list(plan_bench(config))
    table = Table("cell", "calls", "tokens read", "tokens written", "US dollars", box=SIMPLE_HEAD)
    for item in planned:
        price = "unknown" if item.cost is None else f"{item.cost:.2f}"
        table.add_row(
            item.cell.name, f"{item.n_calls:,}", f"{item.n_prompt_tokens:,}", f"{item.n_tokens:,}", price
        )
    Console(highlight=False, width=160).print(table)
    written = sum(item.n_tokens for item in planned)
    costs = [item.cost for item in planned]
    known = sum(cost for cost in costs if cost is not None)
    total = f"{known:.2f} US dollars" + (" and calls whose price is unknown" if None in costs else "")
    seconds = [item.seconds for item in planned]
    hours = ""
    if tokens_per_second:
        hours = f", {written / tokens_per_second / 3600:.1f} hours of writing"
    elif None not in seconds:
        total_seconds = sum(value for value in seconds if value is not None)
        hours = f", about {total_seconds / 3600:.1f} hours of two cores with the embedded model"
    typer.echo(
        f"{len(planned)} cells, {sum(item.n_calls for item in planned):,} calls, "
        f"{sum(item.n_prompt_tokens for item in planned):,} tokens read, {written:,} written, {total}{hours}."
        " Calls are those of the first rounds; texts that are rejected are written again, up to a bound. "
        "Nothing was spent."
    )
