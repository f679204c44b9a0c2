"""What is looked at before the first cell of a benchmark: hours of work come after it."""

import json
from collections.abc import Iterator
from hashlib import blake2b, sha256
from importlib import metadata
from pathlib import Path

from rpsg import data, registry
from rpsg.audit.pool import MIN_UNITS
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.changes import prompts_digest
from rpsg.config import RunConfig
from rpsg.errors import DataError
from rpsg.evaluate.metrics import chosen_metrics
from rpsg.evaluate.resampling import MIN_ROWS
from rpsg.pipeline import label_warnings, load_corpus
from rpsg.rng import Streams
from rpsg.types import PrivateCorpus


def check_bench(config: BenchConfig) -> dict[str, str]:
    """Reads every data set and looks for the judges, before hours of work rather than after them.

    Returns:
        Cell name to a digest of all that its figures are made of: settings, data, people held out, judges and
        version. It tells whether two data sets are the same, so it is private.

    Raises:
        ConfigError: a model or judge is not known.
        DataError: a data set cannot be read, or too few texts are held out of it.
        ModelUnavailable: the files of a judge are not there.
    """
    check_models(config)
    chosen_metrics((), config.language_model)
    if config.sentiment_judge:
        registry.sentiment_model(config.sentiment_judge)
    prints: dict[str, str] = {}
    made_of = {}
    for cell in cells_of(config):
        if cell.data not in prints:
            prints[cell.data] = _check_data(config, cell)
        parts = [cell.settings, prints[cell.data], config.holdout, config.sentiment_judge]
        parts += [config.language_model, metadata.version("rpsg"), *_files_of(cell)]
        made_of[cell.name] = blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return made_of


def _files_of(cell: Cell) -> list[str]:
    """Returns digests of the files that a cell's settings name, beside its data: prompts, public words."""
    settings = cell.run_config(Path("unused"))
    public = settings.keys.public
    words = [sha256(Path(public).read_bytes()).hexdigest()] if public and Path(public).is_file() else []
    return [found for found in (prompts_digest(settings), *words) if found]


def check_models(config: BenchConfig) -> None:
    """Looks for the models of every cell, as far as that takes no download.

    Raises:
        ConfigError: a model is not known.
        ModelUnavailable: its folder is not there.
    """
    for settings in (cell.run_config(Path("unused")) for cell in cells_of(config)):
        registry.check_name("text", settings.models.write, settings.endpoints)
        registry.check_name("embedder", settings.models.embed, settings.endpoints)


def bench_warnings(config: BenchConfig) -> list[str]:
    """Says which data sets hold out too few people to attack a release, or have labels nobody declared.

    Private, as all that is read from the data.
    """
    warnings = []
    seen: set[tuple[str, ...]] = set()
    for cell, settings, corpus in read_cells(config):
        if (cell.data,) not in seen:
            warnings += _audit_warnings(config, cell.data, *split(config, corpus, cell.seed))
        kind = (cell.data, settings.method, settings.guarantee)
        if kind not in seen:
            warnings += [f"data.{cell.data}: {text}" for text in label_warnings(settings, corpus)]
        seen |= {(cell.data,), kind}
    return list(dict.fromkeys(warnings))


def read_cells(config: BenchConfig) -> Iterator[tuple[Cell, RunConfig, PrivateCorpus]]:
    """Yields every cell with its settings and data; each data set is read once.

    Raises:
        ConfigError: the settings of a cell are not allowed.
        DataError: a data set cannot be read.
    """
    corpora: dict[str, PrivateCorpus] = {}
    for cell in cells_of(config):
        settings = cell.run_config(Path("unused"))
        if cell.data not in corpora:
            corpora[cell.data] = load_corpus(settings)
        yield cell, settings, corpora[cell.data]


def _audit_warnings(
    config: BenchConfig, name: str, given: PrivateCorpus, held_out: PrivateCorpus
) -> list[str]:
    n_given, n_held_out = (len({record.unit_id for record in part.records}) for part in (given, held_out))
    if min(n_given, n_held_out) >= MIN_UNITS:
        return []
    return [
        f"data.{name}: {n_given} people are given to a method and {n_held_out} held out, and an "
        f"audit needs {MIN_UNITS} on each side: no release is attacked, no table says what leaks. "
        f"More people help, or another holdout: at the top of the file (a share of the people, now "
        f"{config.holdout:g})"
    ]


def _check_data(config: BenchConfig, cell: Cell) -> str:
    corpus = load_corpus(cell.run_config(Path("unused")))
    for seed in config.seeds:
        for part, people in zip(split(config, corpus, seed), ("others", "those held out"), strict=True):
            if len(part) < MIN_ROWS:
                raise DataError(
                    f"data.{cell.data}: with holdout {config.holdout:g} and seed {seed}, {people} have "
                    f"{len(part)} texts; figures need {MIN_ROWS} of each"
                )
    return data.fingerprint(corpus)


def split(config: BenchConfig, corpus: PrivateCorpus, seed: int) -> tuple[PrivateCorpus, PrivateCorpus]:
    """Returns the people that a method is given, and those it is not: the same for every cell of a seed."""
    key = Streams(seed).key("bench split").to_bytes(8)
    return data.split_calibration(corpus, share=config.holdout, at_most=len(corpus), key=key)
