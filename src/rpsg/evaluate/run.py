"""Judges a data set made by any tool: reads, checks, scores, writes.

    read_inputs -> prepare -> evaluate -> write_metrics

`metrics.json` holds figures, counts and column names; never a text. It is computed from private data
without noise, so it must be kept like them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rpsg.data import read_corpus
from rpsg.errors import ConfigError, DataError
from rpsg.evaluate.checks import are_readable, check_samples, check_vectors, refuse_holdout
from rpsg.evaluate.metrics import chosen_metrics
from rpsg.evaluate.resampling import MIN_ROWS
from rpsg.evaluate.result import Evaluation, check_folder, write_metrics
from rpsg.rng import Streams
from rpsg.scores import Comparison, Metric, TextSample
from rpsg.text import digest_of
from rpsg.types import Embedder, FloatArray, PrivateCorpus

DEFAULT_REPEATS = 10
SHUFFLED = (
    "holdout texts with their words shuffled across texts; for models to train on, real texts so shuffled"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Which files to compare and which of their columns.

    Attributes:
        real: the private texts that the synthetic ones were made from.
        holdout: other real texts of the same kind.
        synthetic: the texts to judge.
        baseline: texts made without the private ones; None shuffles the holdout's words.
        text_column: column of the texts.
        synthetic_text_column: its name in the synthetic and baseline files, where it differs.
        label_columns: columns to predict.
    """

    real: Path
    holdout: Path
    synthetic: Path
    baseline: Path | None = None
    text_column: str = "text"
    synthetic_text_column: str | None = None
    label_columns: tuple[str, ...] = ()

    def files(self) -> dict[str, Path]:
        """Returns each role's file."""
        named = {"real": self.real, "holdout": self.holdout, "synthetic": self.synthetic}
        return named | ({"baseline": self.baseline} if self.baseline else {})


def read_inputs(inputs: Inputs) -> dict[str, TextSample]:
    """Reads the files.

    Raises:
        ConfigError: one file has two roles, or a column does not exist.
        DataError: a file cannot be used, or has fewer than 20 texts.
    """
    files = inputs.files()
    first: dict[Path, str] = {}
    for role, path in files.items():
        before = first.setdefault(path.resolve(), role)
        if before != role:
            raise ConfigError(f"{path} is given as --{before} and as --{role}; each needs a file of its own")
    samples = {}
    for role, path in files.items():
        is_real = role in {"real", "holdout"}
        column = inputs.text_column if is_real else inputs.synthetic_text_column or inputs.text_column
        # A public baseline need not have labels.
        labels = () if role == "baseline" else inputs.label_columns
        try:
            corpus = read_corpus(path, text_column=column, label_columns=labels, min_words=1)
            samples[role] = replace(sample_of(corpus), n_empty=sum(corpus.skipped.values()))
        except (ConfigError, DataError) as error:
            if str(path) in str(error):
                raise
            raise type(error)(f"{path}: {error}") from None
        if len(samples[role]) < MIN_ROWS:
            raise DataError(
                f"{path} has {len(samples[role])} usable texts; metrics need at least {MIN_ROWS} of each set"
            )
    return samples


def sample_of(corpus: PrivateCorpus) -> TextSample:
    """Returns a corpus as metrics see it."""
    return TextSample(
        texts=tuple(record.text for record in corpus.records),
        labels={
            name: tuple(record.labels.get(name, "") for record in corpus.records)
            for name in corpus.label_columns
        },
    )


def prepare(
    samples: dict[str, TextSample],
    *,
    embedder: Embedder | None,
    seed: int = 0,
    repeats: int = DEFAULT_REPEATS,
) -> tuple[Comparison, list[str]]:
    """Checks the samples against each other, adds a baseline and embeds what has no vectors.

    Args:
        samples: "real", "holdout", "synthetic" and perhaps "baseline".
        embedder: a local model; None leaves out the metrics on embeddings.
        seed: of the baseline and of every draw.
        repeats: draws a metric.

    Returns:
        The comparison, and notes on what the reader must know.

    Raises:
        ConfigError: vectors come from different models.
        DataError: the data sets cannot be compared.
    """
    notes = check_samples(samples)
    full, to_train = dict(samples), None
    if "baseline" not in full:
        full["baseline"] = shuffle_words(samples["holdout"], Streams(seed).get("baseline"))
        # A model that read the words of the holdout would know what it is tested on.
        to_train = shuffle_words(samples["real"], Streams(seed).get("training baseline"))
    if embedder is not None:
        if embedder.trust != "local":
            raise ConfigError(f"embedder {embedder.name!r} is remote and may not read private texts")
        readable = are_readable(embedder, samples, notes)
        full = {
            role: _embed(sample, embedder) if readable else replace(sample, vectors=None)
            for role, sample in full.items()
        }
    check_vectors(full)
    comparison = Comparison(
        real=full["real"],
        holdout=full["holdout"],
        synthetic=full["synthetic"],
        baseline=full["baseline"],
        training_baseline=to_train,
        seed=seed,
        repeats=repeats,
    )
    return comparison, notes


def shuffle_words(sample: TextSample, rng: np.random.Generator) -> TextSample:
    """Returns texts of the same lengths whose words are those of all texts in random order."""
    parts = [text.split() for text in sample.texts]
    words = [word for part in parts for word in part]
    order = iter(rng.permutation(len(words)))
    texts = tuple(" ".join(words[next(order)] for _ in part) for part in parts)
    return TextSample(texts=texts)


def _embed(sample: TextSample, embedder: Embedder) -> TextSample:
    if sample.vectors is not None:
        return sample
    # Equal texts get equal vectors only when embedded once: batches round differently.
    distinct = list(dict.fromkeys(sample.texts))
    places = {text: i for i, text in enumerate(distinct)}
    vectors: FloatArray = embedder.embed(distinct)[[places[text] for text in sample.texts]]
    return replace(sample, vectors=vectors, embedder=embedder.name)


def evaluate(
    comparison: Comparison,
    metrics: Sequence[Metric],
    *,
    notes: Sequence[str] = (),
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Evaluation:
    """Computes metrics.

    Args:
        comparison: what `prepare` returned.
        metrics: what to compute, in order.
        notes: carried over to the result.
        on_progress: told the metric's name, how many are done, and how many there are.
    """
    scores = []
    for i, metric in enumerate(metrics):
        on_progress(metric.name, i, len(metrics))
        scores += [(metric.family, score) for score in metric.score(comparison)]
    on_progress("", len(metrics), len(metrics))
    return Evaluation(
        scores=tuple(scores),
        n_real=len(comparison.real),
        n_holdout=len(comparison.holdout),
        n_synthetic=len(comparison.synthetic),
        n_baseline=len(comparison.baseline),
        embedder=comparison.synthetic.embedder,
        seed=comparison.seed,
        repeats=comparison.repeats,
        notes=tuple(notes),
        texts_digest=digest_of(comparison.synthetic.texts),
    )


def evaluate_files(
    inputs: Inputs,
    output: Path,
    *,
    embedder: Embedder | None,
    language_model: str | None = "small",
    seed: int = 0,
    repeats: int = DEFAULT_REPEATS,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Evaluation:
    """What `rpsg evaluate` does: reads the files, computes every metric, writes metrics.json.

    Raises:
        ConfigError: a file or column is named wrongly.
        DataError: the data cannot be compared.
    """
    check_folder(output)
    samples = read_inputs(inputs)
    refuse_holdout(samples)
    metrics = chosen_metrics(inputs.label_columns, language_model)
    comparison, notes = prepare(samples, embedder=embedder, seed=seed, repeats=repeats)
    if inputs.baseline is None:
        notes.append(f"baseline: {SHUFFLED}")
    result = evaluate(comparison, metrics, notes=notes, on_progress=on_progress)
    write_metrics(result, output)
    return result


def evaluate_run(
    folder: Path,
    samples: dict[str, TextSample],
    *,
    embedder: Embedder | None,
    labels: Sequence[str] = (),
    language_model: str | None = "small",
    compared: bool = True,
    seed: int = 0,
    repeats: int = DEFAULT_REPEATS,
) -> Evaluation:
    """Judges a run into `<folder>/private/scores`, which must never be shared.

    The hook for the end of `rpsg run`: `samples` holds as "real" the records that could be seeds, as
    "holdout" the calibration part, which never seeds, and as "synthetic" the released texts. With `compared`
    false no language model is trained on real and baseline texts, as those are the same for many runs.

    Raises:
        DataError: a data set has fewer than 20 texts.
    """
    comparison, notes = prepare(samples, embedder=embedder, seed=seed, repeats=repeats)
    notes.append(f"baseline: {SHUFFLED}")
    metrics = chosen_metrics(labels, language_model, compared=compared)
    result = evaluate(comparison, metrics, notes=notes)
    write_metrics(result, folder / "private" / "scores")
    return result
