"""`rpsg canary`: plant made-up records and see what of them a release shows."""

from pathlib import Path
from typing import Annotated

import typer

from rpsg.commands.options import Json, Quiet
from rpsg.errors import ConfigError

EXIT_LEAK = 3
app = typer.Typer(help="Canaries: plant made-up records by blinded coins, and score what a release shows.")


@app.command("plant")
def canary_plant(
    source: Annotated[Path, typer.Argument(metavar="CONFIG_OR_DATA", help="rpsg.yaml, or a data file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The planted copy to write; private.")],
    secrets: Annotated[Path, typer.Option(help="The file that will hold canaries and coins; secret.")],
    n: Annotated[
        int, typer.Option("-n", help="Canaries: 100 for a smoke test, 500 or more to certify.")
    ] = 100,
    kind: Annotated[list[str] | None, typer.Option(help="suffix, sampled, fact, tail; may repeat.")] = None,
    repeat: Annotated[list[int] | None, typer.Option(help="Records a canary: 1, 4, 16; may repeat.")] = None,
    style: Annotated[str, typer.Option(help="Of made-up facts: posts or abstracts.")] = "posts",
    public: Annotated[
        Path | None, typer.Option(help="Texts that you declare public; default: the model writes some.")
    ] = None,
    poison: Annotated[
        int, typer.Option(help="Crafted records, 10 to 50, that try to pull canaries out; 0: none.")
    ] = 0,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it leads to and plant nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Plant canaries into a copy of the data, each by its own coin, and keep the coins secret."""
    from rpsg.canaries import CanaryRequest, plant_canaries, prepare
    from rpsg.console import ProgressView
    from rpsg.options import build_config

    request = CanaryRequest(
        config=build_config(source, {}, setting or []),
        output=output,
        secrets=secrets,
        n_canaries=n,
        kinds=tuple(kind or ()),
        repetitions=tuple(repeat or (1,)),
        style=style,
        public=public,
        n_poisons=poison,
    )
    corpus, lines = prepare(request)
    for line in lines:
        typer.echo(line)
    if dry_run:
        typer.echo("Nothing was planted.")
        return
    with ProgressView(silent=quiet) as view:
        plant_canaries(request, corpus, on_progress=view.show)
    typer.echo(
        f"Threw a coin for each of {n} canaries and planted those that fell on in: {output}. Coins and "
        f"texts: {secrets}; keep it away from whoever attacks the release. A run of {output} says on its "
        "card that it contains canaries and is not published; publish a run of the clean data."
    )


@app.command("score")
def canary_score(
    secrets: Annotated[Path, typer.Argument(metavar="SECRETS", help="What rpsg canary plant wrote.")],
    run: Annotated[Path | None, typer.Option(metavar="RUN_FOLDER", help="A run of the planted file.")] = None,
    synthetic: Annotated[Path | None, typer.Option(help="Or texts released by any other tool.")] = None,
    synthetic_text_column: Annotated[str, typer.Option(help="Column of that file with the text.")] = "text",
    delta: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="At this delta, where no run says it.")
    ] = 1e-6,
    without: Annotated[
        Path | None, typer.Option(help="Texts released from the same data without poisons.")
    ] = None,
    public: Annotated[Path | None, typer.Option(help="Texts that the attacker knows.")] = None,
    embedder: Annotated[
        str | None, typer.Option(help="For the nearest text; not the run's own. Default: weighted words.")
    ] = None,
    language_models: Annotated[
        bool, typer.Option("--language-models/--no-language-models", help="Scores that train small models.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Breaks ties.")] = 0,
    as_json: Json = False,
) -> None:
    """Say what a release shows of the coins, with lower bounds of epsilon. Exit status 3 if it shows some."""
    from rpsg.audit.canary_findings import Claim
    from rpsg.audit.canary_scores import MODELS
    from rpsg.audit.lower_bounds import power_table
    from rpsg.audit.verdict import LEAK
    from rpsg.canaries import (
        Scoring,
        delta_of,
        judge_canaries,
        read_synthetic,
        released_texts,
        score_run,
        score_texts,
    )
    from rpsg.console_canary import print_findings

    if (run is None) == (synthetic is None):
        raise ConfigError("name what to score: --run RUN_FOLDER, or --synthetic FILE")
    how = Scoring(
        without=without,
        public=read_synthetic(public, text_column="text") if public is not None else [],
        embedder=embedder,
        auxiliary=MODELS if language_models else None,
        seed=seed,
    )
    if run is not None:
        delta = delta_of(run)
        found = score_run(secrets, run, how)
        texts = released_texts(run)
    else:
        assert synthetic is not None
        texts = read_synthetic(synthetic, text_column=synthetic_text_column)
        found = score_texts(secrets, texts, how, claim=Claim(delta=delta, epsilon={}))
    verdict = judge_canaries(found, texts)
    print_findings(found, verdict, power_table(delta), as_json=as_json)
    if verdict.word == LEAK:
        raise typer.Exit(EXIT_LEAK)
