"""`rpsg models`: what can run here."""

import typer

from rpsg.commands.options import Json

app = typer.Typer(help="Models: which are available, and fetching the embedded ones.")


@app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False) -> None:
    """List models: where they run, licence, size, checksum."""
    if context.invoked_subcommand is None:
        from rpsg.console import print_models
        from rpsg.llm.models import list_models

        print_models(list_models(), as_json=as_json)


@app.command()
def fetch() -> None:
    """Install the embedded models' files and check them."""
    from rpsg.console import print_models
    from rpsg.llm import models as embedded

    embedded.fetch()
    print_models(embedded.list_models(), as_json=False)
