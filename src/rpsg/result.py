"""What a run gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rpsg.types import SyntheticText
from rpsg.writers import check_released, to_table

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The released texts and what happened on the way.

    Attributes:
        texts: the released texts, in released order.
        label_columns: their label columns.
        statement: what protects the private texts, and what does not.
        folder: the run folder.
        counts: figures of the run: seeds, candidates, accepted, tokens, seconds.
        rejected: "stage: reason" to count.
        notes: what the reader should know, for example a filter that was off.
        n_wanted: texts asked for.
        are_copies: whether the texts are private ones, word for word; then none is an example.

    Raises:
        PrivateDataError: a text is not a released text.
    """

    texts: tuple[SyntheticText, ...]
    label_columns: tuple[str, ...]
    statement: str
    folder: Path
    counts: Mapping[str, float]
    rejected: Mapping[str, int]
    notes: tuple[str, ...]
    n_wanted: int
    are_copies: bool = False

    def __post_init__(self) -> None:
        check_released(self.texts)

    @property
    def synthetic(self) -> "pa.Table":
        """The released rows: id, text, labels. `.to_pandas()` and `datasets.Dataset(table)` work on it."""
        return to_table(self.texts, self.label_columns)

    @property
    def complete(self) -> bool:
        """Whether as many texts were released as were asked for."""
        return len(self.texts) == self.n_wanted

    def examples(self, n: int) -> Sequence[SyntheticText]:
        """Returns the first `n` released texts; their order is already a secret shuffle."""
        return () if self.are_copies else self.texts[:n]

    def figures(self) -> list[tuple[str, str]]:
        """Returns the run's table, one (name, value) a line."""
        rows = [(name, f"{value:,.0f}") for name, value in self.counts.items()]
        rows += [(f"rejected, {reason}", f"{count:,}") for reason, count in sorted(self.rejected.items())]
        return rows

    def summary(self) -> dict[str, object]:
        """Returns the run's figures as plain values, without texts."""
        return {
            "folder": str(self.folder),
            "statement": self.statement,
            "n_wanted": self.n_wanted,
            "n_released": len(self.texts),
            "counts": dict(self.counts),
            "rejected": dict(self.rejected),
            "notes": list(self.notes),
        }
