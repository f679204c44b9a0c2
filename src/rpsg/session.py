"""What a run holds open: models, ledger, store of finished calls, progress, counts."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.llm.prompting import PromptedSummariser, load_prompt
from rpsg.llm.wrappers import CallStore, StoredSummariser, StoredTextModel, require_local
from rpsg.privacy.ledger import Ledger, Limit
from rpsg.privacy.noise import NoiseSource
from rpsg.rng import Streams
from rpsg.rundir import RunDir
from rpsg.stages.refine import private_details
from rpsg.types import (
    Embedder,
    FloatArray,
    PiiDetector,
    PrivateRecord,
    Progress,
    Rejection,
    SentimentModel,
    Summariser,
)

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """One model a task."""

    summariser: Summariser | None
    writer: StoredTextModel
    embedder: Embedder
    sentiment: SentimentModel | None
    pii: PiiDetector | None


@dataclass(slots=True, kw_only=True, repr=False)
class Session:
    """The open parts of one run; holds private details, so it does not print itself."""

    config: RunConfig
    folder: RunDir
    ledger: Ledger
    models: Models
    streams: Streams
    on_progress: OnProgress
    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejection] = field(default_factory=list)
    vectors: dict[str, FloatArray] = field(default_factory=dict)
    tones: dict[str, str] = field(default_factory=dict)
    details: dict[str, frozenset[str]] = field(default_factory=dict)
    n_outside: int | None = None
    public_inputs: str = ""
    started: float = field(default_factory=time.monotonic)

    def reject(self, items: Iterable[Rejection]) -> None:
        """Keeps rejections: ids and reasons."""
        self.rejected += items

    def tell(self, stage: str, done: int, total: int) -> None:
        """Reports a stage that writes no tokens; marks it when it is complete."""
        self.on_progress(Progress(stage=stage, done=done, total=total))
        if done >= total:
            self.folder.mark(stage.replace(" ", "-"))

    def embed_records(self, records: Sequence[PrivateRecord]) -> FloatArray:
        """Returns the records' unit vectors, shape (n, d); each record is embedded once a run."""
        new = [record for record in records if record.record_id not in self.vectors]
        found = self._embed_private([record.text for record in new])
        self.vectors.update({record.record_id: row for record, row in zip(new, found, strict=True)})
        if not records:
            return self.models.embedder.embed([])
        return np.stack([self.vectors[record.record_id] for record in records])

    def _embed_private(self, texts: Sequence[str]) -> FloatArray:
        embed = self.models.embedder.embed
        if self.config.guarantee != "end-to-end":
            return embed(texts)
        # In a batch, a text's last bits depend on the others: padding, and how products are summed.
        # Sensitivity is proved for vectors that are a function of one record.
        return np.concatenate([embed([text]) for text in texts]) if texts else embed([])

    def find_details(self, records: Sequence[PrivateRecord]) -> dict[str, frozenset[str]]:
        """Returns the personal details in each record's text; none without a detector."""
        new = [record for record in records if record.record_id not in self.details]
        model = self.models.pii
        if model is not None:
            require_local(model.name, model.trust, task="finding personal details")
        found = private_details([record.text for record in new], model) if model else [frozenset()] * len(new)
        self.details.update({record.record_id: values for record, values in zip(new, found, strict=True)})
        return {record.record_id: self.details[record.record_id] for record in records}

    def judge_tones(self, records: Sequence[PrivateRecord]) -> dict[str, str]:
        """Returns each record's sentiment, of all of its text; empty without a sentiment model."""
        model = self.models.sentiment
        if model is None:
            return {}
        require_local(model.name, model.trust, task="sentiment")
        judged = model.classify([record.text for record in records])
        self.tones.update(
            {record.record_id: found.label for record, found in zip(records, judged, strict=True)}
        )
        return self.tones


@contextmanager
def open_session(
    config: RunConfig, folder: RunDir, on_progress: OnProgress, *, noise: NoiseSource | None = None
) -> Iterator[Session]:
    """Loads the models and opens the run's files; closes the files at the end."""
    counts: Counter[str] = Counter()
    limit = None
    if config.guarantee == "end-to-end" and config.epsilon is not None:
        limit = Limit(epsilon=config.epsilon, delta=config.delta)
    ledger = Ledger.open(folder.ledger, noise=noise, limit=limit, binding=folder.binding)
    try:
        store = CallStore(folder.calls)
        try:
            yield Session(
                config=config,
                folder=folder,
                ledger=ledger,
                models=load_models(config, store, partial(_count, counts, on_progress)),
                streams=Streams(config.seed),
                on_progress=on_progress,
                counts=counts,
            )
        finally:
            store.close()
    finally:
        ledger.close()


def load_models(config: RunConfig, store: CallStore, on_progress: OnProgress) -> Models:
    """Loads the models that a configuration names.

    Raises:
        ModelUnavailable: a model's files are not there.
        PrivateDataError: a task that reads private text, or a summary of it, names a remote model.
    """
    names, generation = config.models, config.generation
    settings = f"{generation.dtype}/{generation.threads}"
    size = generation.chunk_size
    wrap = partial(StoredTextModel, store=store, chunk_size=size, settings=settings, on_progress=on_progress)
    load = partial(registry.text_model, dtype=generation.dtype, threads=generation.threads)
    writer = load(names.write)
    summariser: Summariser | None
    if config.guarantee == "end-to-end":
        # Nothing is summarised, and the writer reads ledger outputs only: it may be remote.
        summariser = None
    elif registry.is_summariser(names.abstract):
        model = registry.summariser(names.abstract, max_tokens=config.abstract.max_tokens)
        summariser = StoredSummariser(
            model, store, chunk_size=size, settings=settings, on_progress=on_progress
        )
    else:
        reader = writer if names.abstract == names.write else load(names.abstract)
        summariser = PromptedSummariser(
            wrap(reader, stage="abstract"),
            load_prompt(config.abstract.prompt, "abstract"),
            sampling=config.abstract,
            max_tokens=config.abstract.max_tokens,
        )
    if summariser is not None:
        require_local(writer.name, writer.trust, task="writing from summaries of private text")
        require_local(summariser.name, summariser.trust, task="abstraction")
    embedder = registry.embedder(names.embed)
    require_local(embedder.name, embedder.trust, task="embedding")
    return Models(
        summariser=summariser,
        writer=wrap(writer, stage="write"),
        embedder=embedder,
        sentiment=registry.sentiment_model(names.sentiment) if names.sentiment else None,
        pii=registry.pii_detector(names.pii) if config.refine.pii.enabled else None,
    )


def _count(counts: Counter[str], on_progress: OnProgress, step: Progress) -> None:
    counts["tokens written"] += step.n_new
    on_progress(step)
