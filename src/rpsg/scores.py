"""The nouns of judging a data set: what is compared, a figure with its interval, a metric."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from rpsg.types import FloatArray

Better = Literal["lower", "higher", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TextSample:
    """A data set as metrics see it. It may be private: its `repr` shows sizes only.

    Attributes:
        texts: the texts.
        vectors: one row a text, shape (n, d); None where no embedder was used.
        labels: label column to one value a text, "" where a text has none.
        embedder: name of the model that made `vectors`.
        n_empty: rows of its file that had no text.
    """

    texts: tuple[str, ...]
    vectors: FloatArray | None = None
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    embedder: str = ""
    n_empty: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"TextSample(<{len(self.texts)} texts>)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a metric is given.

    Attributes:
        real: the private texts that the synthetic ones shall resemble.
        holdout: other real texts; what they get is the reference.
        synthetic: the texts to judge.
        baseline: texts that anybody could make without the private ones, or shuffled holdout ones.
        training_baseline: what a model is trained on in its place, where the baseline is made of the very
            texts that the model is tested on; None where it is not.
        repeats: how often a metric draws its subsamples.
        seed: fixes every draw.
    """

    real: TextSample
    holdout: TextSample
    synthetic: TextSample
    baseline: TextSample
    training_baseline: TextSample | None = None
    repeats: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure of a data set.

    Attributes:
        name: of the figure.
        value: of the synthetic texts; None where it cannot be computed, see `reason`.
        low: lower end of the 95 % interval.
        high: upper end.
        n: rows of each data set that one computation saw.
        reference: what as many real holdout texts get.
        baseline: what as many baseline texts get.
        uses_private: whether `value` was computed from private data.
        better: the good direction; "reference" means as near to the reference as possible.
        reason: why there is no value.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    reference: float | None = None
    baseline: float | None = None
    uses_private: bool = True
    better: Better = "reference"
    reason: str = ""


@runtime_checkable
class Metric(Protocol):
    """Computes figures of a data set. Others add theirs with entry points named `metric:<name>`."""

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    def score(self, comparison: Comparison) -> list[Score]:
        """Returns one or more figures; one that cannot be computed has a reason instead of a value."""
