"""`rpsg bench`."""

from pathlib import Path
from typing import Annotated

import typer

from rpsg.commands.options import Quiet


def bench(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="bench.yaml")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder; a stopped benchmark goes on there.")
    ],
    quiet: Quiet = False,
) -> None:
    """Compare methods: data sets x methods x models x epsilon x seeds, with means and intervals."""
    from rpsg.bench.cells import run_bench
    from rpsg.bench.matrix import BenchConfig, Cell
    from rpsg.bench.tables import write_tables

    def announce(cell: Cell, number: int, total: int) -> None:
        if not quiet:
            typer.echo(f"{number + 1}/{total} {cell.name}")

    outcomes = run_bench(BenchConfig.load(config_file), output, on_cell=announce)
    paths = write_tables(outcomes, output)
    if not quiet:
        for item in outcomes:
            if item.state != "done":
                typer.echo(f"{item.state}: {item.data}, {item.method}, seed {item.seed}: {item.reason}")
        typer.echo(
            f"Written to {', '.join(map(str, paths))}, computed from private texts: do not share them."
        )
