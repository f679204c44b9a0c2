"""A run's models: one a task, each reading only what it may, each finished call kept."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.endpoints import FREE, Serving, find_endpoint
from rpsg.errors import ConfigError
from rpsg.exchange import clear_left
from rpsg.executor import (
    ChunkedEmbedder,
    Executor,
    Kind,
    Spec,
    SpreadEmbedder,
    SpreadSentiment,
    SpreadTextModel,
    ThreadExecutor,
    use_threads,
)
from rpsg.llm.batched import BatchedTextModel, check_batch_endpoint
from rpsg.llm.calls import CallStore
from rpsg.llm.device import resolve_device
from rpsg.llm.meter import Meter, load_prices
from rpsg.llm.prompting import PromptedSummariser, PromptName, has_roles, load_lines, load_prompt
from rpsg.llm.sentiment import PromptedSentiment
from rpsg.llm.wrappers import (
    CalledTextModel,
    StagedTextModel,
    StoredSummariser,
    StoredTextModel,
    require_local,
)
from rpsg.method_config import READS_PRIVATE_TEXT
from rpsg.types import (
    Content,
    Embedder,
    PiiDetector,
    Progress,
    SentimentModel,
    ServedTextModel,
    Summariser,
    TextModel,
)

if TYPE_CHECKING:
    from rpsg.llm.openai import OpenAITextModel

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """One model a task."""

    summariser: Summariser | None
    writer: StagedTextModel
    embedder: ChunkedEmbedder | SpreadEmbedder
    sentiment: SentimentModel | None
    pii: PiiDetector | None
    judge: StagedTextModel | None = None
    open: tuple["Closeable", ...] = ()

    def close(self) -> None:
        """Closes connections to servers."""
        for item in self.open:
            item.close()


@runtime_checkable
class Closeable(Protocol):
    """Holds connections."""

    def close(self) -> None:
        """Closes them."""


def check_trust(config: RunConfig) -> None:
    """Refuses a configuration that would show private text to a remote server, before anything is begun.

    The loaded models are asked again: one that another package brings is known only then.

    Raises:
        PrivateDataError: it would.
        ConfigError: a model's endpoint is unknown.
    """
    models = config.models
    reads = {"embedding": models.embed, "sentiment": models.sentiment}
    if config.method in READS_PRIVATE_TEXT:
        reads |= {f"method {config.method}": models.write, "looking for giveaways": models.judge}
    elif config.guarantee != "end-to-end":
        reads |= {"abstraction": models.abstract}
        if not config.allow_remote_abstractions:
            reads |= {"writing from summaries of private text": models.write}
    for task, name in reads.items():
        endpoint = find_endpoint(name, config.endpoints) if name else None
        if name and endpoint is not None:
            require_local(name, endpoint.trust, task=task)


def check_keys(config: RunConfig) -> None:
    """Refuses a run whose servers' keys are not set, before anything is begun.

    Raises:
        ConfigError: a variable is not set.
    """
    models = config.models
    for task, name in models.model_dump(include={"abstract", "write", "embed", "sentiment", "judge"}).items():
        if task == "abstract" and config.guarantee == "end-to-end":
            continue
        endpoint = find_endpoint(name, config.endpoints) if name else None
        if endpoint is not None:
            endpoint.read_keys()


def check_prompts(config: RunConfig) -> None:
    """Refuses a run whose prompts are not whole, before anything is begun.

    Raises:
        ConfigError: a file is missing, or is not a prompt for its purpose.
    """
    names: tuple[PromptName, ...] = ("write", "rewrite")
    if config.guarantee == "end-to-end":
        names = ("public", "keys", "rewrite")
        has_roles(config.write.prompt)
    else:
        load_prompt(config.abstract.prompt, "abstract")
    for name in names:
        load_prompt(config.write.prompt, name)
    load_lines(config.write.prompt, "openers.txt")


def with_device(config: RunConfig) -> RunConfig:
    """Returns the configuration with the device that models compute on, as this machine has it.

    Noted when a run begins: texts written on a GPU are others than those written on a processor, so the run
    goes on on the same kind of device only.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    device = resolve_device(config.generation.device)
    generation = config.generation.model_copy(update={"device": device})
    return config.model_copy(update={"generation": generation})


@contextmanager
def open_executor(config: RunConfig, private: Path) -> Iterator[Executor | None]:
    """Starts the workers that a configuration asks for; none where the models compute in this process.

    Args:
        config: of the run.
        private: the private part of the run folder; workers elsewhere read and write there.

    Raises:
        ConfigError: Ray is not installed, or threads of a worker are not named.
        RunDirError: chunks that a killed run left in a bucket cannot be removed.
        ModelError: the cluster cannot be reached.
    """
    clear_left(private)
    wanted, threads = config.executor, config.generation.threads
    if wanted.kind == "serial":
        yield None
        return
    if threads is None:
        raise ConfigError(
            f"executor.kind: {wanted.kind} needs generation.threads, the processor threads of each worker, "
            "for example 1: by default one model takes all cores"
        )
    if wanted.kind == "threads":
        n_workers = wanted.workers or max(1, (os.cpu_count() or 1) // threads)
        with closing(ThreadExecutor(n_workers)) as executor:
            yield executor
        return
    from rpsg.executor_ray import RayExecutor

    with closing(RayExecutor(wanted, private, threads=threads, device=config.generation.device)) as executor:
        yield executor


def load_models(
    config: RunConfig, store: CallStore, on_progress: OnProgress, executor: Executor | None = None
) -> Models:
    """Loads the models that a configuration names.

    Args:
        config: of the run.
        store: of finished calls.
        on_progress: told how far a stage is.
        executor: computes for the models of transformers; this process by default.

    Raises:
        ModelUnavailable: a model's files are not there.
        PrivateDataError: a task that reads private text, or a summary of it, names a remote model.
    """
    names, device = config.models, config.generation.device
    loader = _Loader(config, store, on_progress, executor)
    writer = loader.load(names.write)
    # End-to-end, nothing is summarised, and the writer reads ledger outputs only: it may be remote.
    summariser = None if config.guarantee == "end-to-end" else loader.summariser(writer)
    if summariser is not None:
        require_local(summariser.name, summariser.trust, task="abstraction")
        if not config.allow_remote_abstractions:
            require_local(writer.name, writer.trust, task="writing from summaries of private text")
    embedder = loader.embedder()
    require_local(embedder.name, embedder.trust, task="embedding")
    return Models(
        summariser=summariser,
        sentiment=loader.sentiment(),
        writer=loader.keep(writer, "write"),
        embedder=embedder,
        pii=registry.pii_detector(names.pii, device=device) if config.refine.pii.enabled else None,
        judge=loader.judge(),
        open=tuple(loader.opened),
    )


def load_writer(config: RunConfig, store: CallStore, on_progress: OnProgress, name: str) -> StagedTextModel:
    """Loads a model in this process that writes in place of the configuration's: one that a run has trained.

    Raises:
        ModelUnavailable: its files are not there.
    """
    loader = _Loader(config, store, on_progress)
    return loader.keep(loader.load(name), "write")


def load_embedder(config: RunConfig) -> Embedder:
    """Loads the embedder alone.

    Raises:
        ModelUnavailable: its files are not there.
        PrivateDataError: it is remote.
    """
    serving = Serving(endpoints=config.endpoints, calling=config.calling, remote_content=FREE)
    embedder = registry.embedder(config.models.embed, serving=serving, device=config.generation.device)
    require_local(embedder.name, embedder.trust, task="embedding")
    return embedder


@dataclass(slots=True)
class _Loader:
    config: RunConfig
    store: CallStore
    on_progress: OnProgress
    executor: Executor | None = None
    opened: list[Closeable] = field(default_factory=list)
    serving: Serving = field(init=False)
    meter: Meter = field(init=False)
    settings: str = field(init=False)

    def __post_init__(self) -> None:
        config, generation = self.config, self.config.generation
        abstraction: frozenset[Content] = frozenset({"abstraction"})
        may_leave = FREE | abstraction if config.allow_remote_abstractions else FREE
        self.serving = Serving(endpoints=config.endpoints, calling=config.calling, remote_content=may_leave)
        self.meter = Meter(config.calling, load_prices(config.calling.prices), self.store.usage())
        self.settings = f"{generation.dtype}/{generation.threads}/{generation.device}"

    def load(self, name: str) -> TextModel:
        generation = self.config.generation
        if self.executor is not None and find_endpoint(name, self.config.endpoints) is None:
            return SpreadTextModel(self.executor, self.spec("text", name))
        model = registry.text_model(
            name,
            device=generation.device,
            dtype=generation.dtype,
            threads=generation.threads,
            serving=self.serving,
        )
        if isinstance(model, Closeable):
            self.opened.append(model)
        return model

    def keep(self, model: TextModel, stage: str) -> StagedTextModel:
        if not isinstance(model, ServedTextModel):
            return StoredTextModel(
                model,
                store=self.store,
                stage=stage,
                chunk_size=self.config.generation.chunk_size,
                settings=self.settings,
                on_progress=self.on_progress,
            )
        endpoint = find_endpoint(model.name, self.config.endpoints)
        if endpoint is None or endpoint.mode == "live":
            return CalledTextModel(
                model, store=self.store, stage=stage, meter=self.meter, on_progress=self.on_progress
            )
        check_batch_endpoint(model.name, endpoint)
        return BatchedTextModel(
            cast("OpenAITextModel", model),
            store=self.store,
            stage=stage,
            meter=self.meter,
            on_progress=self.on_progress,
        )

    def summariser(self, writer: TextModel) -> Summariser:
        config, name = self.config, self.config.models.abstract
        if registry.is_summariser(name):
            spec = self.spec("summariser", name)
            return StoredSummariser(
                SpreadTextModel(self.executor, spec) if self.executor else cast("Summariser", spec.load()),
                self.store,
                chunk_size=config.generation.chunk_size,
                settings=self.settings,
                on_progress=self.on_progress,
            )
        return PromptedSummariser(
            self.keep(writer if name == config.models.write else self.load(name), "abstract"),
            load_prompt(config.abstract.prompt, "abstract"),
            sampling=config.abstract,
            max_tokens=config.abstract.max_tokens,
        )

    def judge(self) -> StagedTextModel | None:
        name = self.config.models.judge
        if name is None:
            return None
        model = self.load(name)
        require_local(model.name, model.trust, task="looking for giveaways")
        return self.keep(model, "judge")

    def embedder(self) -> ChunkedEmbedder | SpreadEmbedder:
        name, generation = self.config.models.embed, self.config.generation
        if self.executor is not None and find_endpoint(name, self.config.endpoints) is None:
            spec = self.spec("embedder", name)
            return SpreadEmbedder(self.executor, spec, chunk_size=generation.chunk_size)
        embedder = registry.embedder(name, device=generation.device, serving=self.serving)
        use_threads(generation.threads)
        if isinstance(embedder, Closeable):
            self.opened.append(embedder)
        return ChunkedEmbedder(embedder, chunk_size=generation.chunk_size)

    def spec(self, kind: Kind, name: str) -> Spec:
        generation, max_tokens = self.config.generation, self.config.abstract.max_tokens
        return Spec(
            kind=kind,
            name=name,
            device=generation.device,
            dtype=generation.dtype,
            threads=generation.threads,
            max_tokens=max_tokens if kind == "summariser" else 0,
        )

    def sentiment(self) -> SentimentModel | None:
        name = self.config.models.sentiment
        if not name:
            return None
        if find_endpoint(name, self.config.endpoints) is not None:
            return PromptedSentiment(self.keep(self.load(name), "sentiment"))
        generation = self.config.generation
        # End-to-end runs judge each text by itself: a message and two files a text would cost more than that.
        if self.executor is not None and self.config.guarantee != "end-to-end":
            spec = self.spec("sentiment", name)
            return SpreadSentiment(self.executor, spec, chunk_size=generation.chunk_size)
        return registry.sentiment_model(name, device=generation.device)
