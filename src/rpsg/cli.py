"""The command line. It reads options, calls the library and prints; nothing else."""

import json
import os
import sys
import traceback
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rpsg.errors import ConfigError, RpsgError

if TYPE_CHECKING:
    from rpsg.config import RunConfig
    from rpsg.result import RunResult
    from rpsg.types import PrivateCorpus

EXIT_BUG = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
SHOW_MESSAGES = "RPSG_SHOW_MESSAGES"

app = typer.Typer(
    name="rpsg",
    help="Turn private texts into realistic synthetic ones, with an honest privacy statement.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="Models: which are available, and fetching the embedded ones.")
app.add_typer(models_app, name="models")
budget_app = typer.Typer(help="Data budgets: what all runs on the same people may cost together.")
app.add_typer(budget_app, name="budget")
public_app = typer.Typer(help="Public topics and phrases for end-to-end runs.")
app.add_typer(public_app, name="public")
card_app = typer.Typer(help="Privacy cards: check one, sign one.")
app.add_typer(card_app, name="card")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("rpsg.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented configuration file."""
    template = files("rpsg").joinpath("template.yaml").read_text(encoding="utf-8")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; choose another name or add --force")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}")
    path.write_text(template, encoding="utf-8")
    typer.echo(f"Wrote {path}. Set data.path in it, then: rpsg validate {path}")


@app.command()
def validate(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="rpsg.yaml")],
    as_json: Json = False,
) -> None:
    """Check configuration and data and say what would happen. Spends nothing."""
    from rpsg import pipeline
    from rpsg.config import RunConfig
    from rpsg.console import print_plan

    config = RunConfig.load(config_file)
    corpus = pipeline.load_corpus(config)
    print_plan(config, corpus, pipeline.plan(config, corpus), as_json=as_json)


@app.command()
def plan(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="rpsg.yaml")],
    as_json: Json = False,
) -> None:
    """Print the ledger of a run in advance: each release, its noise, its cost. Spends nothing."""
    from rpsg import pipeline
    from rpsg.config import RunConfig
    from rpsg.console import print_ledger_plan

    config = RunConfig.load(config_file)
    corpus = pipeline.load_corpus(config)
    lines = pipeline.plan_releases(config, corpus)
    notes = pipeline.plan_notes(config, corpus)
    print_ledger_plan(config, corpus, lines, notes=notes, as_json=as_json)


@app.command()
def run(
    source: Annotated[Path, typer.Argument(metavar="CONFIG_OR_DATA", help="rpsg.yaml, or a data file.")],
    text_column: Annotated[str | None, typer.Option(help="Column with the text.")] = None,
    label_column: Annotated[list[str] | None, typer.Option(help="Column with a label; may repeat.")] = None,
    unit_column: Annotated[str | None, typer.Option(help="Column naming the person to protect.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the row's id.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="Texts wanted.")] = None,
    preset: Annotated[str | None, typer.Option(help="small-cpu, paper-reddit or paper-pubmed.")] = None,
    guarantee: Annotated[str | None, typer.Option(help="none, selection or end-to-end.")] = None,
    epsilon: Annotated[str | None, typer.Option(help="Privacy parameter of the choice; default 4.")] = None,
    delta: Annotated[str | None, typer.Option(help="Delta; default 1e-6.")] = None,
    n_units_bound: Annotated[
        int | None, typer.Option(help="Most people there can be, by what is public (end-to-end).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling, never of privacy noise.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder.")] = None,
    output_format: Annotated[list[str] | None, typer.Option("--format", help="jsonl, csv, parquet.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting.")
    ] = None,
    outside_budget: Annotated[
        bool, typer.Option("--outside-budget", help="Run although the data's budget cannot be charged.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a synthetic replica of private texts."""
    options: dict[str, object] = {
        "data.text_column": text_column,
        "data.label_columns": label_column,
        "data.unit_column": unit_column,
        "data.id_column": id_column,
        "n": n,
        "preset": preset,
        "guarantee": guarantee,
        "epsilon": epsilon,
        "delta": delta,
        "n_units_bound": n_units_bound,
        "seed": seed,
        "output.folder": str(output) if output else None,
        "output.formats": output_format,
        "outside_budget": outside_budget or None,
    }
    from rpsg.options import build_config

    _execute(build_config(source, options, setting or []), quiet=quiet, as_json=as_json)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="The folder of a stopped run.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped; nothing finished is done again."""
    from rpsg.rundir import RunDir
    from rpsg.yaml_file import set_value

    config = RunDir.open(folder).read_config()
    values = config.model_dump(mode="json", exclude_unset=True)
    set_value(values, "output.folder", str(folder))
    _execute(type(config).parse(values), quiet=quiet, as_json=as_json)


@app.command()
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
        str | None, typer.Option(help="Its name in the synthetic file, where it differs.")
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


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False) -> None:
    """List models: where they run, licence, size, checksum."""
    if context.invoked_subcommand is None:
        from rpsg.console import print_models
        from rpsg.llm.models import list_models

        print_models(list_models(), as_json=as_json)


@models_app.command()
def fetch() -> None:
    """Install the embedded models' files and check them."""
    from rpsg.console import print_models
    from rpsg.llm import models as embedded

    embedded.fetch()
    print_models(embedded.list_models(), as_json=False)


@public_app.command("build")
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


@budget_app.command("init")
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


@budget_app.command("show")
def budget_show(as_json: Json = False) -> None:
    """Show every data budget of this user and what was spent."""
    from rpsg.console import print_budgets
    from rpsg.privacy.budget import all_budgets

    print_budgets([budget.state() for budget in all_budgets()], as_json=as_json)


@card_app.command("check")
def card_check(
    card_file: Annotated[Path, typer.Argument(metavar="FILE", help="A privacy_card.json.")],
    ledger: Annotated[Path | None, typer.Option(metavar="RUN_FOLDER", help="Compare with this run.")] = None,
    public_key: Annotated[str | None, typer.Option(help="Demand a signature by this key (hex).")] = None,
) -> None:
    """Build a card again from its lines and say whether it holds."""
    from rpsg.privacy.card_file import check_card
    from rpsg.privacy.ledger import read_run
    from rpsg.rundir import RunDir

    run_ledger = read_run(RunDir.open(ledger).ledger) if ledger else None
    problems = check_card(card_file, ledger=run_ledger, public_key=public_key)
    if problems:
        raise ConfigError(f"{card_file} does not hold: {'; '.join(problems)}")
    typer.echo(f"{card_file} holds: its figures and words follow from its lines.")
    if not (ledger or public_key):
        typer.echo(
            "Not checked: whether a line was left out. For that: --ledger RUN_FOLDER or --public-key KEY."
        )


@card_app.command("keygen")
def card_keygen(
    key_file: Annotated[Path, typer.Argument(metavar="KEY_FILE", help="The file to write; keep it secret.")],
) -> None:
    """Make a signing key (Ed25519) and print its public key."""
    from rpsg.privacy.card_file import new_key

    typer.echo(f"Public key: {new_key(key_file)}")


@card_app.command("sign")
def card_sign(
    card_file: Annotated[Path, typer.Argument(metavar="FILE", help="A privacy_card.json.")],
    key: Annotated[Path, typer.Option(help="The key file of: rpsg card keygen.")],
) -> None:
    """Check a card and sign it in place; any later edit fails the check."""
    from rpsg.privacy.card_file import sign_card

    typer.echo(f"Signed {card_file}. Public key: {sign_card(card_file, key)}")


@card_app.command("schema")
def card_schema() -> None:
    """Print the JSON schema of a card."""
    from rpsg.privacy.card_file import schema

    typer.echo(json.dumps(schema(), indent=2))


@app.command()
def doctor() -> None:
    """Say what is missing on this machine, and the command that fixes it."""
    from rpsg.console import print_checks
    from rpsg.doctor import examine

    checks = examine()
    print_checks(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(EXIT_BAD_INPUT)


def _execute(config: "RunConfig", *, quiet: bool, as_json: bool) -> None:
    from rpsg import pipeline
    from rpsg.console import ProgressView, print_result, print_statement

    corpus: PrivateCorpus = pipeline.load_corpus(config)
    config = pipeline.with_folder(config)
    plan = pipeline.plan(config, corpus)
    silent = quiet or as_json
    if not silent:
        print_statement(config, corpus, plan)
    try:
        with ProgressView(silent=silent) as view:
            result: RunResult = pipeline.run(config, corpus, on_progress=view.show)
    except KeyboardInterrupt:
        typer.echo(
            f"\nStopped. What is finished is kept. Go on with:\n  rpsg resume {config.output.folder}",
            err=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_result(result, quiet=quiet, as_json=as_json)


def _show_bug(error: Exception) -> None:
    # A message of Python or of a library may quote what it was given: a record's id, a piece of text.
    message = f"message withheld, because it may quote private text; {SHOW_MESSAGES}=1 shows it. "
    message += "This is a bug of rpsg: please report the lines above"
    if os.environ.get(SHOW_MESSAGES):
        message = str(error)
    lines = "".join(traceback.format_tb(error.__traceback__))
    typer.echo(f"Traceback (most recent call last):\n{lines}{type(error).__name__}: {message}", err=True)


def main() -> NoReturn:
    """Entry point: errors raised on purpose become one message and exit status 2, bugs exit status 1."""
    try:
        app(standalone_mode=True)
    except RpsgError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_BAD_INPUT)
    except Exception as error:  # noqa: BLE001 (typer puts its own hook in place of sys.excepthook)
        _show_bug(error)
        sys.exit(EXIT_BUG)
    sys.exit(0)


if __name__ == "__main__":
    main()
