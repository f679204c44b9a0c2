"""`rpsg public`: topics and phrases from public text."""

from pathlib import Path
from typing import Annotated

import typer

from rpsg.commands.options import Quiet
from rpsg.errors import ConfigError

app = typer.Typer(help="Public topics and phrases for end-to-end runs.")


@app.command("build")
def public_build(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="An end-to-end rpsg.yaml.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("public.json"),
    corpus: Annotated[
        Path | None, typer.Option(help="Texts that you declare public; default: the model writes some.")
    ] = None,
    text_column: Annotated[str, typer.Option(help="Column of that file with the text.")] = "text",
    phrases: Annotated[int, typer.Option(min=1, max=10_000, help="Most phrases to keep.")] = 500,
    quiet: Quiet = False,
) -> None:
    """Build public topics and phrases. The private file is not opened."""
    from rpsg.config import RunConfig
    from rpsg.console import ProgressView
    from rpsg.public import build_public_file
    from rpsg.public_file import write_public_file

    if output.exists():
        raise ConfigError(f"{output} exists; choose another name with -o")
    if not output.parent.is_dir():
        raise ConfigError(f"there is no folder {output.parent}")
    config = RunConfig.load(config_file)
    with ProgressView(silent=quiet) as view:
        found = build_public_file(
            config, corpus=corpus, text_column=text_column, n_phrases=phrases, on_progress=view.show
        )
    write_public_file(found, output)
    typer.echo(
        f"Wrote {output}: {len(found.centroids)} topic(s), {len(found.phrases)} phrases of {found.n_texts} "
        f"texts ({found.source}). Name it in {config_file}: keys.public"
    )
