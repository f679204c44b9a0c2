"""The nouns of the project and the protocols that are open to users.

Values derived from private text and not yet released have types whose name starts with `Private`.
Their `repr` shows sizes only, so that no log line, traceback or debugger prints a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rpsg.errors import DataError

Trust = Literal["local", "remote"]
# Where models in this process compute; auto: on a GPU where there is one.
Device = Literal["auto", "cpu", "cuda"]
# What a prompt holds: nothing private; ledger outputs; an abstraction or what was written from one;
# private text.
Content = Literal["public", "released", "abstraction", "private"]
Guarantee = Literal["none", "selection", "end-to-end"]
Labels = Mapping[str, str]
FloatArray = npt.NDArray[np.float32]


# --- private -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateRecord:
    """One row of the private data set.

    Attributes:
        record_id: the row's id in the input, or its position.
        unit_id: the person or thing to protect; several records may share it.
        text: the private text.
        labels: label column to value.
    """

    record_id: str
    unit_id: str
    text: str
    labels: Labels = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"PrivateRecord(<{len(self.text)} characters>)"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateCorpus:
    """The private data set as read.

    Attributes:
        records: the usable rows, in input order: a tuple, or what reads them from their files.
        label_columns: names of the label columns, in order.
        has_units: whether a unit column was named; without one every row is its own unit.
        skipped: reason to number of rows left out.
        warnings: what the person should know before a run; counts and column names only.

    Raises:
        DataError: two records have the same id.
    """

    records: Sequence[PrivateRecord]
    label_columns: tuple[str, ...] = ()
    has_units: bool = False
    skipped: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Others, such as records that stay in their files, were checked when they were read.
        if not isinstance(self.records, tuple):
            return
        if len({record.record_id for record in self.records}) < len(self.records):
            raise DataError("two records have the same id; every record needs one of its own")

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"PrivateCorpus(<{len(self.records)} records>)"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateAbstraction:
    """A summary of one private record, written by a local model: still private."""

    abstraction_id: str
    record_id: str
    text: str

    def __repr__(self) -> str:
        return f"PrivateAbstraction(<{len(self.text)} characters>)"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateVariant:
    """A text that a model wrote from an abstraction or from another variant; not yet released.

    Attributes:
        variant_id: unique in the run.
        record_id: the seed it descends from.
        text: the text.
        labels: the seed's labels.
        parent_id: id of the abstraction or variant it was written from.
    """

    variant_id: str
    record_id: str
    text: str
    labels: Labels = field(default_factory=dict)
    parent_id: str = ""

    def __repr__(self) -> str:
        return f"PrivateVariant(<{len(self.text)} characters>)"


# --- released ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What to write about, sampled from noisy histograms: a function of ledger outputs.

    Attributes:
        seed_id: unique in the run.
        phrases: to be evoked.
        labels: label column to value.
        tone: positive, negative or neutral.
        n_words: length asked for.
    """

    seed_id: str
    phrases: tuple[str, ...]
    labels: Labels
    tone: str
    n_words: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A text written from a seed, or from another candidate: post-processing of ledger outputs.

    Attributes:
        variant_id: unique in the run.
        record_id: the seed it was written from.
        text: the text.
        labels: the seed's.
    """

    variant_id: str
    record_id: str
    text: str
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticText:
    """A released text. Only `Ledger.release` makes one from private values.

    Attributes:
        text_id: a fresh random id that says nothing of the seed.
        text: the text.
        labels: label column to value.
        paid_by: id of the ledger line that released it.
    """

    text_id: str
    text: str
    labels: Labels
    paid_by: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why an item did not go on: ids, which are the private data's own, and a reason, never text."""

    item_id: str = field(repr=False)
    record_id: str = field(repr=False)
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage is.

    Attributes:
        stage: its name.
        done: items finished.
        total: items to do; may grow while a stage retries.
        n_tokens: tokens written by the stage's models so far, without what was read back.
        n_new: tokens written since the last report.
        seconds: since the stage's models began.
        cost: US dollars that the run's calls have cost so far; None for models of one's own.
    """

    stage: str
    done: int
    total: int
    n_tokens: int = 0
    n_new: int = 0
    seconds: float = 0.0
    cost: float | None = None


# --- models --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """One text to be written. A last message by the assistant is continued, not answered.

    Attributes:
        messages: the prompt.
        content: the most private thing in the prompt; what a remote model may read is decided by it.
        max_tokens: upper bound on new tokens.
        temperature: 0 is greedy.
        top_k: keep the k likeliest tokens before `top_p`; 0 keeps all.
        top_p: then keep the smallest set of tokens whose probability reaches this.
        stop: the reply ends before the first of these strings.
        seed: the reply is a function of model, prompt, parameters and seed.
    """

    messages: tuple[Message, ...] = field(repr=False)
    content: Content
    max_tokens: int
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.95
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A model's reply.

    Attributes:
        text: the whole reply, with the words that the request's last message began it with; empty where
            the reply was rejected.
        n_prompt_tokens: as the model counts them; None where a server does not say.
        n_tokens: tokens written, likewise.
        finish: `length` when it ran into `max_tokens`, `rejected` when there is no usable reply.
        reason: why it was rejected.
    """

    text: str = field(repr=False)
    n_prompt_tokens: int | None
    n_tokens: int | None
    finish: Literal["stop", "length", "rejected"]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentiment:
    """A label and the model's confidence in it, in [0, 1]."""

    label: Literal["positive", "negative", "neutral"]
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PiiSpan:
    """Characters `start:end` of a text name a person or thing of this type."""

    start: int
    end: int
    type: str
    score: float


@runtime_checkable
class TextModel(Protocol):
    """Writes texts."""

    @property
    def name(self) -> str: ...
    @property
    def trust(self) -> Trust: ...
    @property
    def context_tokens(self) -> int:
        """Prompt and reply together may have this many tokens."""

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Returns one completion a request, in order."""


class CallSink(Protocol):
    """Is told of every call to a server while it is made; see `ServedTextModel`."""

    def begin(self, index: int) -> None:
        """Is called before a request is taken up; an exception ends the run after calls under way."""

    def sending(self, index: int, host: str, n_characters: int) -> None:
        """Is called before each try, with the length of the prompt."""

    def end(self, index: int, reply: Completion | None) -> None:
        """Is called when a request was answered, or given up by an exception."""

    async def keep(self, index: int, reply: Completion) -> None:
        """Returns when the reply is on file."""

    def flush(self) -> None:
        """Is called when no call is under way any more."""


@runtime_checkable
class ServedTextModel(TextModel, Protocol):
    """A text model on a server, whose calls cost money and are kept one by one."""

    @property
    def hosts(self) -> tuple[str, ...]: ...
    @property
    def reasoning_tokens(self) -> int:
        """Tokens that a reply may have beside the text that was asked for."""

    def complete_each(self, requests: Sequence[TextRequest], sink: CallSink) -> None:
        """Completes requests in any order and hands each reply to the sink."""

    def close(self) -> None: ...


@runtime_checkable
class Summariser(Protocol):
    """Writes several different short versions of a text."""

    @property
    def name(self) -> str: ...
    @property
    def trust(self) -> Trust: ...
    @property
    def max_words(self) -> int:
        """Longest text, in words, that it reads whole."""

    def summarise(
        self, texts: Sequence[str], *, n: int, seeds: Sequence[int], tones: Sequence[str]
    ) -> list[list[Completion]]:
        """Returns up to `n` distinct summaries a text, in order of preference.

        `tones` are what each is to sound like, "" for no matter; a model that takes no orders ignores them.
        """


@runtime_checkable
class Embedder(Protocol):
    """Maps each text on its own to a vector."""

    @property
    def name(self) -> str: ...
    @property
    def trust(self) -> Trust: ...
    @property
    def cosine_range(self) -> tuple[float, float]:
        """Cosine of unrelated and of near-identical texts, measured once on public text."""

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Returns unit vectors, shape (len(texts), dimension)."""


@runtime_checkable
class SentimentModel(Protocol):
    """Judges the sentiment of texts."""

    @property
    def name(self) -> str: ...
    @property
    def trust(self) -> Trust: ...
    def classify(self, texts: Sequence[str]) -> list[Sentiment]:
        """Returns one judgement a text, of all of it."""


@runtime_checkable
class PiiDetector(Protocol):
    """Finds personal details in texts."""

    @property
    def name(self) -> str: ...
    @property
    def trust(self) -> Trust: ...
    def find(self, texts: Sequence[str]) -> list[list[PiiSpan]]:
        """Returns the spans of each text, sorted and not overlapping."""


@runtime_checkable
class LikelihoodModel(Protocol):
    """Scores how expected a text is."""

    def nll(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Returns the mean negative log-likelihood per token (nats), shape (len(texts),)."""
