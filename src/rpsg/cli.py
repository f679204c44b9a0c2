"""The command line. It reads options, calls the library and prints; nothing else."""

import json
import os
import signal
import sys
import traceback
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rpsg.commands import (
    audit,
    bench,
    budget,
    canary,
    card,
    evaluate,
    models,
    public,
    release,
    report,
    review,
    runs,
)
from rpsg.commands.options import Json, MaxCost, MaxSeconds, MaxTokens, Offline, OutsideBudget, Quiet
from rpsg.errors import ConfigError, RpsgError

if TYPE_CHECKING:
    from rpsg.config import RunConfig
    from rpsg.result import RunResult
    from rpsg.types import PrivateCorpus
    from rpsg.yaml_file import SettingName

EXIT_BUG = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
SHOW_MESSAGES = "RPSG_SHOW_MESSAGES"

app = typer.Typer(
    name="rpsg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rpsg {version('rpsg')}")
        raise typer.Exit


@app.callback()
def everywhere(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Turn private texts into realistic synthetic ones, with an honest privacy statement."""


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
    source: Annotated[Path, typer.Argument(metavar="CONFIG_OR_DATA", help="rpsg.yaml, or a data file.")],
    as_json: Json = False,
) -> None:
    """Check configuration and data and say what would happen. Spends nothing."""
    from rpsg import pipeline
    from rpsg.console_plan import print_plan
    from rpsg.options import build_config

    config = build_config(source, {}, [])
    corpus = pipeline.load_corpus(config)
    print_plan(config, corpus, pipeline.plan(config, corpus), as_json=as_json)


@app.command()
def plan(
    source: Annotated[Path, typer.Argument(metavar="CONFIG_OR_DATA", help="rpsg.yaml, or a data file.")],
    as_json: Json = False,
) -> None:
    """Print in advance each release, its noise, its cost, and the calls of models. Spends nothing."""
    from rpsg.options import build_config

    _show_plan(build_config(source, {}, []), as_json=as_json)


@app.command()
def run(
    source: Annotated[Path, typer.Argument(metavar="CONFIG_OR_DATA", help="rpsg.yaml, or a data file.")],
    text_column: Annotated[str | None, typer.Option(help="Column with the text.")] = None,
    label_column: Annotated[list[str] | None, typer.Option(help="Column with a label; may repeat.")] = None,
    unit_column: Annotated[str | None, typer.Option(help="Column naming the person to protect.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the row's id.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="Texts wanted.")] = None,
    method: Annotated[
        str | None, typer.Option(help="rpsg, rpsg-published, augpe, dpsgd, rupta, public or copy.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="small-cpu, paper-reddit or paper-pubmed.")] = None,
    guarantee: Annotated[str | None, typer.Option(help="none, selection or end-to-end.")] = None,
    epsilon: Annotated[str | None, typer.Option(help="Privacy parameter of the choice; default 4.")] = None,
    delta: Annotated[str | None, typer.Option(help="Delta; default 1e-6.")] = None,
    n_units_bound: Annotated[
        int | None, typer.Option(help="Most people there can be, by what is public (end-to-end).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling, never of privacy noise.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Summarises and writes: a name, a folder, or ENDPOINT:NAME on a server."),
    ] = None,
    base_url: Annotated[list[str] | None, typer.Option(help="Where that server is; may repeat.")] = None,
    api_key_env: Annotated[
        list[str] | None, typer.Option(help="NAME of the environment variable with its key; may repeat.")
    ] = None,
    trust: Annotated[
        str | None, typer.Option(help="local: that server may read private text. Else remote.")
    ] = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    executor: Annotated[
        str | None, typer.Option(help="Where models compute: serial, threads or ray; see docs/scale.md.")
    ] = None,
    offline: Offline = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="NUMBER/OF", help="Embed one part of the texts; see rpsg merge.")
    ] = None,
    output_format: Annotated[list[str] | None, typer.Option("--format", help="jsonl, csv, parquet.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting.")
    ] = None,
    outside_budget: OutsideBudget = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what `rpsg plan` would, and stop. Spends nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a synthetic replica of private texts."""
    options: dict[SettingName, object] = {
        "data.text_column": text_column,
        "data.label_columns": label_column,
        "data.unit_column": unit_column,
        "data.id_column": id_column,
        "n": n,
        "method": method,
        "preset": preset,
        "guarantee": guarantee,
        "epsilon": epsilon,
        "delta": delta,
        "n_units_bound": n_units_bound,
        "seed": seed,
        "executor.kind": executor,
        "output.folder": str(output) if output else None,
        "output.formats": output_format,
        "outside_budget": outside_budget or None,
    }
    from rpsg.options import build_config, model_options

    options |= model_options(model, base_url=base_url, api_key_env=api_key_env, trust=trust)
    options |= _limits(max_cost, max_tokens, max_seconds)
    config = build_config(source, options, setting or [])
    if dry_run:
        if offline:
            _forbid_network(config)
        _show_plan(config, as_json=as_json)
    elif shard is None:
        _execute(config, offline=offline, quiet=quiet, as_json=as_json)
    else:
        _execute_shard(config, shard, offline=offline, quiet=quiet)


@app.command()
def merge(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Where the shards of a run are.")],
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    offline: Offline = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Finish a run whose shards are done: all noise is drawn here."""
    from rpsg.rundir import RunDir
    from rpsg.shards import check_complete

    check_complete(RunDir.open(folder))
    resume(folder, max_cost, max_tokens, max_seconds, offline=offline, quiet=quiet, as_json=as_json)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="The folder of a stopped run.")],
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    outside_budget: OutsideBudget = False,
    offline: Offline = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped; nothing finished is done again."""
    from rpsg.exchange import clear_left
    from rpsg.release import find_changes
    from rpsg.rundir import RunDir
    from rpsg.yaml_file import set_value

    run_folder = RunDir.open(folder)
    config = run_folder.read_config()
    if run_folder.is_done("released") and not find_changes(run_folder):
        clear_left(run_folder.private)
        if as_json:
            typer.echo(json.dumps({"folder": str(folder), "state": "finished"}))
        elif not quiet:
            typer.echo(f"{folder} is finished; nothing was done. What to do next stands in its report.")
        return
    values = config.model_dump(mode="json", exclude_unset=True)
    set_value(values, "output.folder", str(folder))
    for name, value in _limits(max_cost, max_tokens, max_seconds).items():
        if value is not None:
            set_value(values, name, value)
    if outside_budget:
        set_value(values, "outside_budget", True)
    _execute(type(config).parse(values), offline=offline, quiet=quiet, as_json=as_json)


@app.command()
def doctor() -> None:
    """Say what is missing on this machine, and the command that fixes it."""
    from rpsg.console import print_checks
    from rpsg.doctor import examine

    checks = examine()
    print_checks(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(EXIT_BAD_INPUT)


def _show_plan(config: "RunConfig", *, as_json: bool) -> None:
    from rpsg import pipeline
    from rpsg.console_plan import print_ledger_plan

    corpus: PrivateCorpus = pipeline.load_corpus(config)
    lines = pipeline.plan_releases(config, corpus)
    notes = pipeline.plan_notes(config, corpus)
    calls = pipeline.plan_tasks(config, corpus)
    print_ledger_plan(config, corpus, lines, calls, notes=notes, as_json=as_json)


def _limits(
    max_cost: float | None, max_tokens: int | None, max_seconds: float | None
) -> "dict[SettingName, object]":
    limits = {"max_cost": max_cost, "max_tokens": max_tokens, "max_seconds": max_seconds}
    return {f"calling.{name}": value for name, value in limits.items()}


def _execute_shard(config: "RunConfig", name: str, *, offline: bool, quiet: bool) -> None:
    from rpsg import pipeline
    from rpsg.console import ProgressView
    from rpsg.shards import Shard, run_shard

    shard = Shard.parse(name)
    if offline:
        _forbid_network(config)
    corpus: PrivateCorpus = pipeline.load_corpus(config)
    with ProgressView(silent=quiet) as view:
        n_records = run_shard(config, corpus, shard, on_progress=view.show)
    if not quiet:
        typer.echo(
            f"Shard {shard.number} of {shard.of} is done: {n_records} records. When all are:\n"
            f"  rpsg merge {config.output.folder}"
        )


def _forbid_network(config: "RunConfig") -> None:
    from rpsg.offline import forbid_network, refuse_servers

    refuse_servers(config)
    forbid_network()


def _execute(config: "RunConfig", *, offline: bool, quiet: bool, as_json: bool) -> None:
    if offline:
        _forbid_network(config)
    from rpsg import pipeline
    from rpsg.console import ProgressView, print_result
    from rpsg.console_plan import print_statement

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
    told = report.finish(result.folder)
    print_result(result, quiet=quiet, as_json=as_json, more=told)


def _show_bug(error: Exception) -> None:
    # A message of Python or of a library may quote what it was given: a record's id, a piece of text.
    message = f"message withheld, because it may quote private text; {SHOW_MESSAGES}=1 shows it. "
    message += "This is a bug of rpsg: please report the lines above"
    if os.environ.get(SHOW_MESSAGES):
        message = str(error)
    lines = "".join(traceback.format_tb(error.__traceback__))
    typer.echo(f"Traceback (most recent call last):\n{lines}{type(error).__name__}: {message}", err=True)


# After those of this file, so that help begins with what is done first.
for name, group in (
    ("models", models),
    ("budget", budget),
    ("public", public),
    ("card", card),
    ("canary", canary),
):
    app.add_typer(group.app, name=name)
app.command()(evaluate.evaluate)
app.command()(audit.audit)
app.command()(runs.runs)
app.command()(runs.status)
app.command()(runs.purge)
app.command()(report.report)
app.command()(report.compare)
app.command()(review.review)
app.command()(release.release)
app.command()(release.push)
app.command()(bench.bench)


def main() -> NoReturn:
    """Entry point: errors raised on purpose become one message and exit status 2, bugs exit status 1."""
    # What ends a job of a queue ends a run as Ctrl-C does: with its processes, and with how to go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(standalone_mode=True)
    except RpsgError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_BAD_INPUT)
    except Exception as error:  # noqa: BLE001 (typer puts its own hook in place of sys.excepthook)
        _show_bug(error)
        sys.exit(EXIT_BUG)
    sys.exit(0)
