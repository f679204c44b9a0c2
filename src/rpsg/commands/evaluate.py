"""The command `rpsg evaluate`: scores of texts that any tool has made."""

from pathlib import Path
from typing import Annotated

import typer

from rpsg.commands.options import Json, Quiet


def evaluate(
    real: Annotated[Path, typer.Option(help="The private texts: csv, jsonl, parquet or a folder.")],
    holdout: Annotated[Path, typer.Option(help="Other real texts of the same source.")],
    synthetic: Annotated[Path, typer.Option(help="The texts to judge, made by any tool.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for metrics.json; private.")],
    baseline: Annotated[
        Path | None, typer.Option(help="Texts made without the private ones; default: shuffled words.")
    ] = None,
    text_column: Annotated[str, typer.Option(help="Column with the text.")] = "text",
    synthetic_text_column: Annotated[
        str | None, typer.Option(help="Its name in the synthetic and baseline files, where it differs.")
    ] = None,
    label_column: Annotated[list[str] | None, typer.Option(help="Label to predict; may repeat.")] = None,
    embedder: Annotated[str, typer.Option(help="Sentence embedder, or none.")] = "all-minilm-l6-v2",
    language_model: Annotated[
        str, typer.Option(help="small, none, or a causal model such as prajjwal1/bert-small.")
    ] = "small",
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Judge synthetic texts: are they realistic, diverse, useful?"""
    from rpsg import registry
    from rpsg.console import ProgressView, print_evaluation
    from rpsg.evaluate.run import Inputs, evaluate_files
    from rpsg.types import Progress

    inputs = Inputs(
        real=real,
        holdout=holdout,
        synthetic=synthetic,
        baseline=baseline,
        text_column=text_column,
        synthetic_text_column=synthetic_text_column,
        label_columns=tuple(label_column or ()),
    )
    with ProgressView(silent=quiet or as_json) as view:
        result = evaluate_files(
            inputs,
            output,
            embedder=None if embedder == "none" else registry.embedder(embedder),
            language_model=language_model,
            seed=seed,
            on_progress=lambda name, done, total: view.show(
                Progress(stage="metrics", done=done, total=total)
            ),
        )
    print_evaluation(result, output, quiet=quiet, as_json=as_json)
