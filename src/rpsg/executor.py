"""Where the models of a run compute: in this process, in threads, or on a Ray cluster.

The unit of work is a chunk: prompts or texts that a model is given together. Chunks are cut alike whatever
computes them, and each is a function of its model and its items, so the released bytes do not depend on
where. Workers read private text and write model outputs; they hold no ledger and draw no noise.
"""

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, cast

import numpy as np

from rpsg import registry
from rpsg.errors import ModelError
from rpsg.types import (
    Completion,
    Device,
    Embedder,
    FloatArray,
    Message,
    Sentiment,
    SentimentModel,
    Summariser,
    TextModel,
    TextRequest,
    Trust,
)

Kind = Literal["text", "summariser", "embedder", "embedder singly", "sentiment"]
Model = TextModel | Summariser | Embedder | SentimentModel
# Chunks that wait at a worker beside the one it computes.
AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Which model computes, and how it is loaded: all that a worker needs to know.

    Attributes:
        kind: of its calls; a text that is embedded singly has a vector that no other text has a part in.
        name: what the configuration says.
        device: that computes.
        dtype: of the weights.
        threads: of one worker.
        max_tokens: of a summary; for summarisers.
    """

    kind: Kind
    name: str
    device: Device = "cpu"
    dtype: str = "auto"
    threads: int | None = None
    max_tokens: int = 0

    def load(self) -> Model:
        """Loads the model.

        Raises:
            ModelUnavailable: its files are not there.
        """
        model = self._load()
        use_threads(self.threads)
        return model

    def _load(self) -> Model:
        if self.kind == "text":
            return registry.text_model(self.name, device=self.device, dtype=self.dtype, threads=self.threads)
        if self.kind == "summariser":
            return registry.summariser(self.name, max_tokens=self.max_tokens, device=self.device)
        if self.kind == "sentiment":
            return registry.sentiment_model(self.name, device=self.device)
        return registry.embedder(self.name, device=self.device)


def use_threads(n: int | None) -> None:
    """Sets the processor threads of all models of this process, where one of them has loaded torch.

    How many there are may change the last bits of what a model computes, so it must not depend on which
    models a worker has, nor on what its environment says.
    """
    torch = sys.modules.get("torch")
    if n is not None and torch is not None:
        torch.set_num_threads(n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a run must know of a model that is elsewhere.

    Attributes:
        name: the model's.
        trust: whether it may read private text.
        size: tokens of its context, or words that a summariser reads.
        cosine_range: of an embedder.
    """

    name: str
    trust: Trust
    size: int = 0
    cosine_range: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, model: Model) -> "Description":
        """Describes a loaded model."""
        size = getattr(model, "context_tokens", 0) or getattr(model, "max_words", 0)
        cosine_range = getattr(model, "cosine_range", (0.0, 1.0))
        return cls(name=model.name, trust=model.trust, size=size, cosine_range=cosine_range)


class Executor(Protocol):
    """Computes chunks elsewhere. A chunk and its result are JSON."""

    def describe(self, spec: Spec) -> Description:
        """Loads a model on a worker and says what it is.

        Raises:
            ModelUnavailable: its files are not there.
        """

    def compute(self, spec: Spec, chunks: Iterable[str]) -> Iterator[tuple[int, str]]:
        """Yields place and result of each chunk as they are done, in any order.

        Raises:
            ModelError: a model failed, or no worker is left.
        """

    def close(self) -> None:
        """Ends the workers."""


class Worker:
    """Loads each model once, and computes chunks with it."""

    def __init__(self) -> None:
        self._models: dict[Spec, Model] = {}

    def model(self, spec: Spec) -> Model:
        """Returns a model, loaded the first time."""
        if spec.kind == "embedder singly":
            spec = replace(spec, kind="embedder")
        if spec not in self._models:
            self._models[spec] = spec.load()
        return self._models[spec]

    def compute(self, spec: Spec, chunk: str) -> str:
        """Computes a chunk."""
        model, items = self.model(spec), json.loads(chunk)
        if spec.kind == "text":
            requests = [_request(item) for item in items]
            return json.dumps([[asdict(reply)] for reply in cast("TextModel", model).complete(requests)])
        if spec.kind == "summariser":
            texts, seeds, counts, tones = zip(*items, strict=True)
            found = cast("Summariser", model).summarise(texts, n=counts[0], seeds=seeds, tones=tones)
            return json.dumps([[asdict(reply) for reply in group] for group in found])
        if spec.kind == "sentiment":
            return json.dumps([asdict(found) for found in cast("SentimentModel", model).classify(items)])
        embed = cast("Embedder", model).embed
        vectors = embed_singly(embed, items) if spec.kind == "embedder singly" else embed(items)
        # Every float32 is a float64, which JSON keeps to the last bit.
        return json.dumps(vectors.tolist())


def _request(item: dict[str, object]) -> TextRequest:
    messages = tuple(Message(**turn) for turn in cast("list[dict[str, Any]]", item["messages"]))
    stop = tuple(cast("list[str]", item["stop"]))
    return TextRequest(**{**item, "messages": messages, "stop": stop})  # type: ignore[arg-type]


def embed_singly(embed: Callable[[Sequence[str]], FloatArray], texts: Sequence[str]) -> FloatArray:
    """Embeds each text by itself: its vector is a function of the text alone, to the last bit."""
    return np.concatenate([embed([text]) for text in texts]) if texts else embed([])


class ThreadExecutor:
    """Computes in threads of this process; each has models of its own, whose caches are not shared."""

    def __init__(self, n_workers: int) -> None:
        """Starts the threads."""
        self._pool = ThreadPoolExecutor(n_workers, thread_name_prefix="rpsg-worker")
        self._own = threading.local()
        # The libraries that load models change global state while they do.
        self._loading = threading.Lock()
        self._n_open = n_workers * (1 + AHEAD)

    def describe(self, spec: Spec) -> Description:
        """Loads a model in a thread and says what it is."""
        return self._pool.submit(lambda: Description.of(self._worker(spec).model(spec))).result()

    def compute(self, spec: Spec, chunks: Iterable[str]) -> Iterator[tuple[int, str]]:
        """Yields results as they are done."""
        waiting = deque(enumerate(chunks))
        running: dict[Future[str], int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._n_open:
                    place, chunk = waiting.popleft()
                    running[self._pool.submit(self._compute, spec, chunk)] = place
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """Waits for what is being computed."""
        self._pool.shutdown(cancel_futures=True)

    def _compute(self, spec: Spec, chunk: str) -> str:
        return self._worker(spec).compute(spec, chunk)

    def _worker(self, spec: Spec) -> Worker:
        if not hasattr(self._own, "worker"):
            self._own.worker = Worker()
        worker: Worker = self._own.worker
        with self._loading:
            worker.model(spec)
        return worker


# --- models that are elsewhere --------------------------------------------------------------------------


def replies_of(result: str) -> list[list[Completion]]:
    """Reads the result of a chunk of requests or texts to summarise."""
    return [[Completion(**reply) for reply in group] for group in json.loads(result)]


class SpreadTextModel:
    """A text model, or a summariser, whose chunks are computed by an executor, many at a time."""

    def __init__(self, executor: Executor, spec: Spec) -> None:
        """Loads the model on a worker.

        Raises:
            ModelUnavailable: its files are not there.
        """
        found = executor.describe(spec)
        self._executor, self._spec = executor, spec
        self.name, self.trust = found.name, found.trust
        self.context_tokens = self.max_words = found.size

    def compute(self, chunks: Sequence[Sequence[object]]) -> Iterator[tuple[int, list[list[Completion]]]]:
        """Yields place and replies of each chunk as they are done."""
        plain = (
            json.dumps([asdict(item) if isinstance(item, TextRequest) else item for item in chunk])
            for chunk in chunks
        )
        for place, result in self._executor.compute(self._spec, plain):
            yield place, replies_of(result)

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Computes the requests as one chunk."""
        ((_, replies),) = self.compute([requests])
        return [reply for (reply,) in replies]

    def summarise(
        self, texts: Sequence[str], *, n: int, seeds: Sequence[int], tones: Sequence[str]
    ) -> list[list[Completion]]:
        """Computes the texts as one chunk."""
        items = [(text, seed, n, tone) for text, seed, tone in zip(texts, seeds, tones, strict=True)]
        ((_, replies),) = self.compute([items])
        return replies


class ChunkedEmbedder:
    """An embedder that is given texts in chunks, so that vectors do not depend on what computes them."""

    def __init__(self, embedder: Embedder, *, chunk_size: int) -> None:
        """Wraps a loaded embedder."""
        self._embedder, self._chunk_size = embedder, chunk_size
        self.name, self.trust = embedder.name, embedder.trust
        self.cosine_range = embedder.cosine_range

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Returns unit vectors, shape (len(texts), dimension)."""
        chunks = cut(texts, self._chunk_size)
        return self._checked(np.concatenate([self._embedder.embed(chunk) for chunk in chunks]), len(texts))

    def embed_singly(self, texts: Sequence[str]) -> FloatArray:
        """Embeds each text by itself: its vector is a function of the text alone, to the last bit."""
        return self._checked(embed_singly(self._embedder.embed, texts), len(texts))

    def _checked(self, vectors: FloatArray, n_texts: int) -> FloatArray:
        # What another package brings may be anything.
        if len(vectors) != n_texts or not np.isfinite(vectors).all():
            raise ModelError(f"{self.name} did not return one finite vector a text")
        return vectors


class SpreadEmbedder:
    """An embedder whose chunks of texts are computed by an executor, many at a time."""

    def __init__(self, executor: Executor, spec: Spec, *, chunk_size: int) -> None:
        """Loads the model on a worker.

        Raises:
            ModelUnavailable: its files are not there.
        """
        found = executor.describe(spec)
        self._executor, self._spec, self._chunk_size = executor, spec, chunk_size
        self.name, self.trust, self.cosine_range = found.name, found.trust, found.cosine_range

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Returns unit vectors, shape (len(texts), dimension)."""
        return self._compute(self._spec, texts)

    def embed_singly(self, texts: Sequence[str]) -> FloatArray:
        """Embeds each text by itself: its vector is a function of the text alone, to the last bit."""
        return self._compute(replace(self._spec, kind="embedder singly"), texts)

    def _compute(self, spec: Spec, texts: Sequence[str]) -> FloatArray:
        chunks = cut(texts, self._chunk_size)
        found = dict(self._executor.compute(spec, map(json.dumps, chunks)))
        parts = [np.array(json.loads(found[place]), dtype=np.float32) for place in range(len(chunks))]
        return np.concatenate(parts) if texts else np.empty((0, 0), dtype=np.float32)


class SpreadSentiment:
    """A sentiment classifier whose chunks of texts are judged by an executor, many at a time."""

    def __init__(self, executor: Executor, spec: Spec, *, chunk_size: int) -> None:
        """Loads the model on a worker.

        Raises:
            ModelUnavailable: its files are not there.
        """
        found = executor.describe(spec)
        self._executor, self._spec, self._chunk_size = executor, spec, chunk_size
        self.name, self.trust = found.name, found.trust

    def classify(self, texts: Sequence[str]) -> list[Sentiment]:
        """Returns one judgement a text."""
        chunks = cut(texts, self._chunk_size)
        found = dict(self._executor.compute(self._spec, map(json.dumps, chunks)))
        return [Sentiment(**item) for place in range(len(chunks)) for item in json.loads(found[place])]


def cut(texts: Sequence[str], size: int) -> list[list[str]]:
    """Cuts texts into chunks; no texts are one empty chunk."""
    return [list(texts[start : start + size]) for start in range(0, max(1, len(texts)), size)]
