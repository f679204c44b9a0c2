"""`rpsg budget`: what all runs on the same people may cost."""

from pathlib import Path
from typing import Annotated

import typer

from rpsg.commands.options import Json

app = typer.Typer(help="Data budgets: what all runs on the same people may cost together.")


@app.command("init")
def budget_init(
    data_file: Annotated[Path, typer.Argument(metavar="DATA", help="The file with the private texts.")],
    epsilon: Annotated[float, typer.Option(help="Most that all runs on these people may cost.")],
    delta: Annotated[float, typer.Option(help="At this delta; below one over the number of people.")] = 1e-6,
    text_column: Annotated[str, typer.Option(help="Column with the text.")] = "text",
    unit_column: Annotated[str | None, typer.Option(help="Column naming the person to protect.")] = None,
) -> None:
    """Give data a privacy budget that all later runs on the same people are charged to."""
    from rpsg.data import read_corpus
    from rpsg.privacy.budget import Budget

    # Every row counts, also one that a run would skip as too short.
    corpus = read_corpus(data_file, text_column=text_column, unit_column=unit_column, min_words=1)
    budget = Budget.create(corpus, name=data_file.name, epsilon=epsilon, delta=delta)
    typer.echo(
        f"Budget of {budget.name}: epsilon {epsilon:g} at delta {delta:g}. It is kept in {budget.path}"
    )


@app.command("show")
def budget_show(as_json: Json = False) -> None:
    """Show every data budget of this user and what was spent."""
    from rpsg.console import print_budgets
    from rpsg.privacy.budget import all_budgets

    print_budgets([budget.state() for budget in all_budgets()], as_json=as_json)
