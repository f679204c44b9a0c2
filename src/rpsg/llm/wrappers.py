"""Model wrappers: finished calls are kept, progress is told, private text is guarded."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, replace
from typing import Generic, Protocol, Self, TypeVar, runtime_checkable

from rpsg.endpoints import split_name
from rpsg.errors import ModelError, PrivateDataError
from rpsg.llm.calls import Call, CallStore, GroupCommit, Sending, call_key, key_of
from rpsg.llm.meter import Meter, estimate_tokens
from rpsg.llm.replies import clean
from rpsg.types import Completion, Progress, ServedTextModel, Summariser, TextModel, TextRequest, Trust

OnProgress = Callable[[Progress], None]
Item = TypeVar("Item")
Replies = list[list[Completion]]
# Maps chunks to place and replies of each, as they are done.
Compute = Callable[[Sequence[Sequence[Item]]], Iterator[tuple[int, Replies]]]
Served = TypeVar("Served", bound=ServedTextModel)
_REPORT_SECONDS = 0.2
_TELL_SECONDS = 1.0


@runtime_checkable
class Spread(Protocol):
    """A model whose chunks are computed elsewhere, many at a time."""

    def compute(self, chunks: Sequence[Sequence[object]]) -> Iterator[tuple[int, Replies]]:
        """Yields place and replies of each chunk as they are done."""


@runtime_checkable
class Telling(Protocol):
    """A text model that tells how many of the requests it was given are complete, and the tokens written."""

    on_written: Callable[[int, int], None] | None


class StagedTextModel(TextModel, Protocol):
    """A text model whose calls are kept and counted by stage."""

    def at(self, stage: str) -> "StagedTextModel":
        """Names the stage that the next calls belong to."""


def require_local(name: str, trust: Trust, *, task: str) -> None:
    """Refuses a remote model for a task that reads private text.

    Raises:
        PrivateDataError: the model is remote.
    """
    if trust != "local":
        endpoint, _ = split_name(name)
        own = f", or say that the server is yours: endpoints.{endpoint}.trust: local" if endpoint else ""
        raise PrivateDataError(
            f"{task} reads private text, so its model must be local, and {name!r} is remote; "
            f"name an embedded one{own}"
        )


class _Chunks:
    """Runs calls in chunks of fixed size in the order given, each stored and found as a whole.

    A chunk's bytes depend on what else is in it (half-precision arithmetic), so chunks are never cut anew.
    """

    def __init__(
        self, store: CallStore, *, stage: str, chunk_size: int, settings: str, on_progress: OnProgress
    ) -> None:
        self._store = store
        self._chunk_size = chunk_size
        self._settings = settings
        self._on_progress = on_progress
        self._last = Progress(stage=stage, done=0, total=0)
        self.stage = stage

    @contextmanager
    def listening(self, model: object, *, n_each: int = 1) -> Iterator[None]:
        """Tells how far a chunk is, about once a second, where the model does; `n_each` requests an item."""
        if not isinstance(model, Telling):
            yield
            return
        before, began = self._last, time.monotonic()
        reported = began

        def tell(n_complete: int, n_tokens: int) -> None:
            nonlocal reported
            now = time.monotonic()
            if now - reported >= _TELL_SECONDS:
                reported = now
                # All are done when they are kept.
                done = min(before.done + n_complete // n_each, before.total - 1)
                tokens = before.n_tokens + n_tokens
                seconds = before.seconds + now - began
                # Nothing is new until it is kept.
                self._on_progress(replace(before, done=done, n_tokens=tokens, n_new=0, seconds=seconds))

        model.on_written = tell
        try:
            yield
        finally:
            model.on_written = None

    def run(self, items: Sequence[Item], compute: Compute[Item], *, name: str) -> list[list[Completion]]:
        """Returns a list of completions an item. `name` and `repr`-free JSON of the items are the key."""
        n_tokens, n_done, started = 0, 0, time.monotonic()
        chunks = [items[start : start + self._chunk_size] for start in range(0, len(items), self._chunk_size)]
        results: list[Replies] = [[] for _ in chunks]
        if items:
            # A chunk may take minutes: say at once what is being done.
            self._tell(Progress(stage=self.stage, done=0, total=len(items)))
        for place, replies, n_new in self._finished(chunks, compute, name):
            results[place] = replies
            n_done, n_tokens = n_done + len(chunks[place]), n_tokens + n_new
            seconds = time.monotonic() - started
            self._tell(
                Progress(
                    stage=self.stage,
                    done=n_done,
                    total=len(items),
                    n_tokens=n_tokens,
                    n_new=n_new,
                    seconds=seconds,
                )
            )
        return [reply for replies in results for reply in replies]

    def _tell(self, step: Progress) -> None:
        self._last = step
        self._on_progress(step)

    def _finished(
        self, chunks: Sequence[Sequence[Item]], compute: Compute[Item], name: str
    ) -> Iterator[tuple[int, Replies, int]]:
        """Yields place, replies and new tokens: of what is on file first, then as it is computed."""
        missing: list[tuple[int, str]] = []
        for place, chunk in enumerate(chunks):
            key = _chunk_key(name, self._settings, chunk)
            stored = self._store.get_chunk(key)
            if stored is None:
                missing.append((place, key))
            else:
                yield place, [[Completion(**reply) for reply in group] for group in stored], 0
        for number, replies in compute([chunks[place] for place, _ in missing]):
            place, key = missing[number]
            if len(replies) != len(chunks[place]):
                # Kept, they would stand beside the wrong texts for good.
                raise ModelError(f"{name} did not return one text a request; nothing of it was kept")
            self._store.put_chunk(key, [[asdict(reply) for reply in group] for group in replies])
            yield place, replies, sum(reply.n_tokens or 0 for group in replies for reply in group)


class StoredTextModel:
    """A text model whose finished chunks are kept. `stage` names what it is writing now."""

    def __init__(
        self,
        model: TextModel,
        *,
        store: CallStore,
        stage: str,
        chunk_size: int,
        settings: str,
        on_progress: OnProgress,
    ) -> None:
        self._model = model
        self._chunks = _Chunks(
            store, stage=stage, chunk_size=chunk_size, settings=settings, on_progress=on_progress
        )
        self.name = model.name
        self.trust: Trust = model.trust
        self.context_tokens = model.context_tokens

    def at(self, stage: str) -> "StoredTextModel":
        """Names the stage that the next calls belong to; shown with the progress."""
        self._chunks.stage = stage
        return self

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Completes chunk by chunk, reporting after each."""
        replies = self._chunks.run(requests, self._compute, name=self.name)
        return [reply for (reply,) in replies]

    def _compute(self, chunks: Sequence[Sequence[TextRequest]]) -> Iterator[tuple[int, Replies]]:
        if isinstance(self._model, Spread):
            yield from self._model.compute(chunks)
            return
        for place, chunk in enumerate(chunks):
            with self._chunks.listening(self._model):
                replies = self._model.complete(chunk)
            yield place, [[reply] for reply in _checked(self.name, replies)]


def _checked(name: str, replies: Sequence[object]) -> list[Completion]:
    """Refuses what another package's model returned if it is no completion: kept, it would break a resume."""
    good = [reply for reply in replies if isinstance(reply, Completion) and isinstance(reply.text, str)]
    if len(good) != len(replies):
        raise ModelError(f"{name} did not return one text a request; nothing of it was kept")
    return [replace(reply, text=clean(reply.text)) for reply in good]


class StoredSummariser:
    """A summariser whose finished chunks are kept."""

    def __init__(
        self, model: Summariser, store: CallStore, *, chunk_size: int, settings: str, on_progress: OnProgress
    ) -> None:
        self._model = model
        self._chunks = _Chunks(
            store, stage="abstract", chunk_size=chunk_size, settings=settings, on_progress=on_progress
        )
        self.name = model.name
        self.trust: Trust = model.trust
        self.max_words = model.max_words

    def summarise(
        self, texts: Sequence[str], *, n: int, seeds: Sequence[int], tones: Sequence[str]
    ) -> list[list[Completion]]:
        """Summarises chunk by chunk, reporting after each."""
        items = [(text, seed, n, tone) for text, seed, tone in zip(texts, seeds, tones, strict=True)]
        return self._chunks.run(items, self._compute, name=self.name)

    def _compute(
        self, chunks: Sequence[Sequence[tuple[str, int, int, str]]]
    ) -> Iterator[tuple[int, Replies]]:
        if isinstance(self._model, Spread):
            yield from self._model.compute(chunks)
            return
        for place, chunk in enumerate(chunks):
            texts, seeds, counts, tones = zip(*chunk, strict=True)
            with self._chunks.listening(getattr(self._model, "writer", self._model), n_each=counts[0]):
                replies = self._model.summarise(texts, n=counts[0], seeds=seeds, tones=tones)
            yield place, replies


@dataclass(eq=False, repr=False)
class KeptTextModel(Generic[Served]):
    """A text model on a server whose finished calls are kept and counted.

    Attributes:
        model: the model.
        store: the file of finished calls.
        stage: what it is called for.
        meter: counts what calls use.
        on_progress: told how far a stage is.

    Raises:
        ConfigError: a cost limit is set, and the model's price is unknown.
    """

    model: Served
    _: KW_ONLY
    store: CallStore
    stage: str
    meter: Meter
    on_progress: OnProgress

    def __post_init__(self) -> None:
        self.name = self.model.name
        self.trust: Trust = self.model.trust
        self.hosts = self.model.hosts
        self.context_tokens = self.model.context_tokens
        self.meter.check_priced(self.name)

    def at(self, stage: str) -> Self:
        """Names the stage that the next calls belong to; shown with the progress."""
        self.stage = stage
        return self


class CalledTextModel(KeptTextModel[ServedTextModel]):
    """A text model on a server: each finished call is kept, and none is made twice.

    Raises:
        LimitReached: the next call might go over a limit on cost, tokens or time.
    """

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Completes what is not on file yet, reporting as replies come in."""
        keys = [call_key(self.name, request) for request in requests]
        found = self.store.find(keys)
        waiting = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        sink = _Sink(self, list(waiting), list(waiting.values()), found, n_all=len(set(keys)))
        sink.report(always=True)
        if waiting:
            self.model.complete_each(list(waiting.values()), sink)
            sink.report(always=True)
        return [found[key] for key in keys]


class _Sink:
    """Takes the replies of one list of requests."""

    def __init__(
        self,
        owner: CalledTextModel,
        keys: Sequence[str],
        requests: Sequence[TextRequest],
        found: dict[str, Completion],
        *,
        n_all: int,
    ) -> None:
        self._owner = owner
        self._keys = keys
        self._requests = requests
        self._found = found
        self._n_all = n_all
        extra = owner.model.reasoning_tokens
        self._sizes = [(estimate_tokens(request), request.max_tokens + extra) for request in requests]
        self._commit = GroupCommit(owner.store)
        self._started = self._reported = time.monotonic()
        self._n_tokens = self._n_new = 0

    def begin(self, index: int) -> None:
        self._owner.meter.begin(self._owner.name, *self._sizes[index])

    def sending(self, index: int, host: str, n_characters: int) -> None:
        self._owner.meter.check_time()
        content = self._requests[index].content
        self._commit.sending(
            Sending(host=host, model=self._owner.name, content=content, n_characters=n_characters)
        )

    def end(self, index: int, reply: Completion | None) -> None:
        self._owner.meter.end(self._owner.name, *self._sizes[index], reply)

    async def keep(self, index: int, reply: Completion) -> None:
        key = self._keys[index]
        await self._commit.add(Call(key=key, stage=self._owner.stage, model=self._owner.name, reply=reply))
        self._found[key] = reply
        self._n_new += reply.n_tokens or 0
        self.report()

    def flush(self) -> None:
        self._commit.flush()

    def report(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        self._n_tokens += self._n_new
        self._owner.on_progress(
            Progress(
                stage=self._owner.stage,
                done=len(self._found),
                total=self._n_all,
                n_tokens=self._n_tokens,
                n_new=self._n_new,
                seconds=now - self._started,
                cost=self._owner.meter.cost_so_far(self._owner.name),
            )
        )
        self._n_new = 0


def _chunk_key(model: str, settings: str, items: Sequence[object]) -> str:
    plain = [asdict(item) if isinstance(item, TextRequest) else item for item in items]
    return key_of([model, settings, plain])
