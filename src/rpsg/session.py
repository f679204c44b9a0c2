"""What a run holds open: models, ledger, store of finished calls, progress, counts."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial

from rpsg.config import RunConfig
from rpsg.llm.calls import CallStore
from rpsg.llm.wrappers import StagedTextModel, require_local
from rpsg.loading import Models, OnProgress, load_models, load_writer, open_executor
from rpsg.privacy.ledger import Ledger, Limit
from rpsg.privacy.noise import NoiseSource
from rpsg.rng import Streams
from rpsg.rundir import RunDir
from rpsg.stages.refine import private_details
from rpsg.types import FloatArray, PrivateRecord, Progress, Rejection, Sentiment, SentimentModel
from rpsg.vectors import StoredVectors, VectorStore

# How often other terminals are told how far a stage is.
PROGRESS_SECONDS = 1.0
_JUDGED_AT_ONCE = 1024


@dataclass(slots=True, kw_only=True, repr=False)
class Session:
    """The open parts of one run; holds private details, so it does not print itself."""

    config: RunConfig
    folder: RunDir
    ledger: Ledger
    models: Models
    streams: Streams
    load_writer: Callable[[str], StagedTextModel]
    on_progress: OnProgress
    vectors: VectorStore
    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejection] = field(default_factory=list)
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

    def embed_records(self, records: Sequence[PrivateRecord]) -> StoredVectors:
        """Returns the records' unit vectors, one row a record; each text is embedded once a run."""
        return self.vectors.embed(
            (record.text for record in records),
            self._embed_private,
            on_block=lambda done: self.on_progress(
                Progress(stage="embed private texts", done=done, total=len(records))
            ),
        )

    def vectors_of(self, records: Sequence[PrivateRecord]) -> dict[str, FloatArray]:
        """Returns record id to unit vector, in memory: for as many records as seed a run."""
        vectors = self.embed_records(records).read()
        return {record.record_id: row for record, row in zip(records, vectors, strict=True)}

    def _embed_private(self, texts: Sequence[str]) -> FloatArray:
        if self.config.guarantee != "end-to-end":
            return self.models.embedder.embed(texts)
        # In a batch, a text's last bits depend on the others: padding, and how products are summed.
        # Sensitivity is proved for vectors that are a function of one record.
        return self.models.embedder.embed_singly(texts)

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
        for start in range(0, len(records), _JUDGED_AT_ONCE):
            part = list(records[start : start + _JUDGED_AT_ONCE])
            judged = self._classify_private(model, [record.text for record in part])
            self.tones.update(
                {record.record_id: found.label for record, found in zip(part, judged, strict=True)}
            )
        return self.tones

    def _classify_private(self, model: SentimentModel, texts: Sequence[str]) -> Sequence[Sentiment]:
        if self.config.guarantee != "end-to-end":
            return model.classify(texts)
        # As with vectors: a server answers texts that it reads together otherwise than each by itself.
        return [judged for text in texts for judged in model.classify([text])]


@contextmanager
def open_session(
    config: RunConfig, folder: RunDir, on_progress: OnProgress, *, noise: NoiseSource | None = None
) -> Iterator[Session]:
    """Keeps other processes off the run, opens its files and loads the models; closes them at the end.

    Raises:
        RunDirError: another process is working on the run.
    """
    counts: Counter[str] = Counter()
    limit = None
    if config.guarantee == "end-to-end" and config.epsilon is not None:
        limit = Limit(epsilon=config.epsilon, delta=config.delta)
    noted = partial(_note, _Notes(folder), on_progress)
    with ExitStack() as open_files:
        open_files.enter_context(folder.working())
        folder.check_not_purged()
        ledger = Ledger.open(folder.ledger, noise=noise, limit=limit, binding=folder.binding)
        open_files.callback(ledger.close)
        ledger.keep_identity(folder.run_id)
        store = open_files.enter_context(closing(CallStore(folder.calls)))
        told = partial(_count, counts, noted)
        executor = open_files.enter_context(open_executor(config, folder.private))
        models = load_models(config, store, told, executor)
        open_files.enter_context(closing(models))
        vectors = VectorStore(folder.embeddings, model=models.embedder.name)
        for name in folder.shard_names():
            if folder.is_shard_done(name):
                vectors.adopt(folder.shard(name) / "embeddings")
        yield Session(
            config=config,
            folder=folder,
            ledger=ledger,
            models=models,
            streams=Streams(config.seed),
            load_writer=partial(load_writer, config, store, told),
            on_progress=noted,
            vectors=vectors,
            counts=counts,
        )


@dataclass(slots=True)
class _Notes:
    """When the run's progress was last written for other terminals."""

    folder: RunDir
    last: float = 0.0


def _note(notes: _Notes, on_progress: OnProgress, step: Progress) -> None:
    now = time.monotonic()
    if step.done >= step.total or now - notes.last > PROGRESS_SECONDS:
        notes.folder.note_progress(asdict(step))
        notes.last = now
    on_progress(step)


def _count(counts: Counter[str], on_progress: OnProgress, step: Progress) -> None:
    counts["tokens written"] += step.n_new
    on_progress(step)
