"""`rpsg runs`, `status`, `purge`: the runs there are, how far one is, and what it keeps."""

import time
from pathlib import Path
from typing import Annotated

import typer

from rpsg.commands.options import Json

_FOLLOW_SECONDS = 2.0

RunFolder = Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="The folder of a run.")]


def runs(
    base: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where your runs are.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs: finished, running or stopped, and how far."""
    from rpsg.console_runs import print_runs
    from rpsg.runstate import find_runs

    print_runs(find_runs(base), base, as_json=as_json)


def status(
    folder: RunFolder,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    as_json: Json = False,
) -> None:
    """Say how far a run is, from any terminal, without disturbing it."""
    from rpsg.console_runs import print_status
    from rpsg.runstate import read_state

    state = read_state(folder)
    print_status(state, as_json=as_json)
    while follow and state.state == "running":
        time.sleep(_FOLLOW_SECONDS)
        before, state = state, read_state(folder)
        if state != before:
            print_status(state, as_json=as_json)


def purge(
    folder: RunFolder,
    private: Annotated[
        bool, typer.Option("--private", help="Remove all of private/, the ledger too.")
    ] = False,
) -> None:
    """Remove a finished run's stored model calls and embeddings, or all that it knows of private texts."""
    from rpsg.runstate import purge as remove
    from rpsg.runstate import purge_private

    if private:
        size = purge_private(folder)
        typer.echo(
            f"Removed {folder}/private ({size / 1e6:.1f} MB). The release stays, and can still be checked "
            f"with: rpsg card check {folder}/release/privacy_card.json"
        )
        return
    size = remove(folder)
    typer.echo(
        f"Removed the stored model calls and embeddings of {folder} ({size / 1e6:.1f} MB). Its release and "
        "its ledger stay; the rest of private/ still describes private texts."
    )
