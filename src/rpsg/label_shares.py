"""Shares: a release holds each combination of labels about as often as its seeds did."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rpsg.stages.vote import class_name
from rpsg.types import Labels


class Labelled(Protocol):
    """Anything with labels: a seed, what a text is written from, a text."""

    @property
    def labels(self) -> Labels:
        """Label column to value."""


T = TypeVar("T", bound=Labelled)


@dataclass(frozen=True, slots=True, repr=False)
class LabelShares:
    """How many texts of each combination of labels are wanted.

    The filters may drop more texts of one label than of another. Private: only for modes whose refill may
    read labels of private records.

    Attributes:
        quota: texts wanted of each class, by its name.
    """

    quota: Mapping[str, int]

    @classmethod
    def of(cls, seeds: Sequence[Labelled]) -> "LabelShares":
        """Takes the shares of seeds, one text a seed."""
        return cls(Counter(class_name(seed.labels) for seed in seeds))

    def missing(self, accepted: Sequence[Labelled]) -> int:
        """Returns how many more texts to write for.

        That is what is missing in all, or to the classes that have less than half of their quota: a refill
        takes minutes, and a text more or less of a label is not worth them.
        """
        short = self._short(accepted)
        poor = sum(n for name, n in short.items() if self.quota[name] - n < self.quota[name] // 2)
        return max(sum(self.quota.values()) - len(accepted), poor)

    def take(self, items: Sequence[T], accepted: Sequence[Labelled], n: int) -> tuple[list[T], list[T]]:
        """Takes `n` to write from, first two for each text that a class misses; returns the rest too."""
        ordered = _first({name: 2 * short for name, short in self._short(accepted).items()}, items)
        return ordered[:n], ordered[n:]

    def cut(self, accepted: Sequence[T]) -> list[T]:
        """Returns as many texts as are wanted: of each class its quota, then the first of the others."""
        return _first(self.quota, accepted)[: sum(self.quota.values())]

    def _short(self, accepted: Sequence[Labelled]) -> Counter[str]:
        return Counter(self.quota) - Counter(class_name(item.labels) for item in accepted)


def _first(room: Mapping[str, int], items: Sequence[T]) -> list[T]:
    left = Counter(room)
    first: list[T] = []
    later: list[T] = []
    for item in items:
        name = class_name(item.labels)
        (first if left[name] > 0 else later).append(item)
        left[name] -= 1
    return first + later
