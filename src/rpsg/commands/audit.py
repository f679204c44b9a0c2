"""`rpsg audit`: what can be learnt from released texts about the people behind them?"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rpsg.commands.options import Json, Quiet
from rpsg.commands.report import finish
from rpsg.errors import ConfigError

if TYPE_CHECKING:
    from rpsg.audit.result import Audit
    from rpsg.audit.run import AuditSettings
    from rpsg.config import RunConfig
    from rpsg.yaml_file import SettingName

EXIT_LEAK = 3
EXIT_SELF_TEST = 1
LEAK = "leak found"
EMBEDDER = "all-minilm-l6-v2"
_USAGE = (
    "say what to audit: a run folder; or --synthetic, --members and --nonmembers with -o; or --from-data "
    "with the files to split and -o; or --self-test with files"
)
_RUN = "a run folder"
# Which options mean something for which way of asking.
_OPTIONS = {
    "--self-test": {"--text-column"},
    "--from-data": {"--from-data", "--config", "--set", "--public", "--text-column", "--unit-column", "-o"},
    "--synthetic": {
        "--synthetic", "--members", "--nonmembers", "--public", "--text-column", "--synthetic-text-column",
        "--unit-column", "-o",
    },
    _RUN: {"--nonmembers", "--canaries", "--public"},
}  # fmt: skip


def audit(
    context: typer.Context,
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN_FOLDER | DATA...]", help="A run, or data to split.")
    ] = None,
    from_data: Annotated[
        bool, typer.Option("--from-data", help="Split the data by a secret coin, run on a half, attack.")
    ] = False,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="What to run with --from-data.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of that run.")
    ] = None,
    synthetic: Annotated[Path | None, typer.Option(help="Released texts, made by any tool.")] = None,
    members: Annotated[Path | None, typer.Option(help="The private texts they were made from.")] = None,
    nonmembers: Annotated[Path | None, typer.Option(help="Other texts of the same source.")] = None,
    public: Annotated[Path | None, typer.Option(help="Texts the attacker knows besides.")] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="Secrets of planted canaries, to score with a run.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column with the text. Default: text.", show_default=False)
    ] = None,
    synthetic_text_column: Annotated[
        str | None, typer.Option(help="Its name in the synthetic file, where it differs.")
    ] = None,
    unit_column: Annotated[str | None, typer.Option(help="Column naming the person.")] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Embedder beside words, or none; links texts to seeds only where the run used another. "
            f"Default: {EMBEDDER}; none in the self-test.",
            show_default=False,
        ),
    ] = None,
    language_models: Annotated[
        bool, typer.Option("--language-models/--no-language-models", help="Attacks that train small models.")
    ] = True,
    thorough: Annotated[bool, typer.Option("--thorough", help="Larger models, more references.")] = False,
    selftest: Annotated[
        bool, typer.Option("--self-test", help="Plant leaks of known size in texts of files, and find them.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write to; private.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes every draw of the attacks.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Attack released texts and report what was found. Exit status 3 if a leak was found."""
    from rpsg import auditing
    from rpsg.console import ProgressView
    from rpsg.console_audit import print_audit

    chosen, audited = sources or [], None
    mode = "--self-test" if selftest else "--from-data" if from_data else "--synthetic" if synthetic else _RUN
    _refuse_others(mode, _given(context), config_file)
    if thorough and not language_models:
        raise ConfigError("--thorough is about the language models that --no-language-models leaves out")
    column = text_column or "text"
    settings = _settings(embedder or ("none" if selftest else EMBEDDER), language_models, thorough)
    if selftest:
        _self_test(chosen, column, seed, settings, quiet=quiet, as_json=as_json)
        return
    attack: Callable[..., Audit]
    if mode == "--from-data":
        folder = _needed(output, "-o")
        config = _configure(chosen, config_file, column, unit_column, setting or [])
        attack = partial(auditing.audit_from_data, chosen, config, folder, public=public)
    elif synthetic is not None:
        if chosen:
            raise ConfigError(f"--synthetic takes no run and no data beside it; {_USAGE}")
        folder = _needed(output, "-o")
        files = auditing.Files(
            synthetic=synthetic,
            members=_needed(members, "--members"),
            nonmembers=_needed(nonmembers, "--nonmembers"),
            public=public,
            text_column=column,
            synthetic_text_column=synthetic_text_column,
            unit_column=unit_column,
        )
        attack = partial(auditing.audit_files, files, folder)
    else:
        audited = _only(chosen)
        folder = audited / "private" / "audit"
        attack = partial(auditing.audit_run, audited, nonmembers=nonmembers, canaries=canaries, public=public)
    with ProgressView(silent=quiet or as_json) as view:
        found = attack(settings=settings, seed=seed, on_progress=view.show)
    print_audit(found, folder / "audit.json", quiet=quiet, as_json=as_json)
    # The report says what the audit found.
    if audited is not None and (told := finish(audited)) and not (quiet or as_json):
        typer.echo("\n".join(told))
    if found.verdict.word == LEAK:
        raise typer.Exit(EXIT_LEAK)


def _given(context: typer.Context) -> list[str]:
    """Returns the options on the command line that only some ways of asking take."""
    known = [option for options in _OPTIONS.values() for option in options]
    return [
        option
        for parameter in context.command.params
        if context.params.get(str(parameter.name))
        for option in parameter.opts
        if option in known
    ]


def _refuse_others(mode: str, given: list[str], config_file: Path | None) -> None:
    """Refuses options that would be passed over: whoever gave them would believe that they count."""
    others = [option for option in given if option not in _OPTIONS[mode]]
    if others:
        raise ConfigError(f"{others[0]} has no meaning for {mode}; leave it out, or {_USAGE}")
    columns = [option for option in ("--text-column", "--unit-column") if option in given]
    if config_file is not None and columns:
        raise ConfigError(f"{columns[0]} beside --config: name the column there, under data")


def _settings(embedder: str, language_models: bool, thorough: bool) -> "AuditSettings":
    from rpsg.audit.run import AuditSettings
    from rpsg.registry import embedder as load_embedder

    return AuditSettings(
        thorough=thorough,
        language_models=language_models,
        embedders=() if embedder == "none" else (load_embedder(embedder),),
    )


def _self_test(
    paths: list[Path], text_column: str, seed: int, settings: "AuditSettings", *, quiet: bool, as_json: bool
) -> None:
    from rpsg.audit.selftest import self_test
    from rpsg.auditing import texts_of
    from rpsg.console import ProgressView
    from rpsg.console_audit import print_trials
    from rpsg.types import Progress

    with ProgressView(silent=quiet or as_json) as view:
        texts = [text for path in paths for text in texts_of(path, text_column=text_column)]
        trials = self_test(
            texts,
            seed=seed,
            settings=settings,
            on_progress=lambda name: view.show(Progress(stage=f"self-test: {name}", done=0, total=1)),
        )
    if not quiet:
        print_trials(trials, as_json=as_json)
    if not all(trial.passed for trial in trials):
        raise typer.Exit(EXIT_SELF_TEST)


def _configure(
    data: list[Path], config_file: Path | None, text_column: str, unit_column: str | None, settings: list[str]
) -> "RunConfig":
    from rpsg.options import build_config

    if not data:
        raise ConfigError(f"--from-data needs files; {_USAGE}")
    options: dict[SettingName, object] = {"data.path": str(data[0])}
    if config_file is None:
        options |= {"data.text_column": text_column, "data.unit_column": unit_column}
    return build_config(config_file or data[0], options, settings)


def _only(sources: list[Path]) -> Path:
    if len(sources) != 1:
        raise ConfigError(_USAGE)
    return sources[0]


def _needed(path: Path | None, option: str) -> Path:
    if path is None:
        raise ConfigError(f"{option} is missing; {_USAGE}")
    return path
