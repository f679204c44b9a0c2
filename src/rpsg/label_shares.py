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

    def take(self, items: Sequence[T], accepted: Sequence[Labelled]) -> tuple[list[T], list[T]]:
        """Takes what to write from: two for each missing text, those of classes that miss some first.

        Where enough texts are there, only classes are served that have less than half of their quota, rounded
        down: a refill takes minutes, and no private record is read for a text that nobody waits for.

        Returns:
            What is taken, and the rest.
        """
        missing = self._missing_in_all(accepted)
        short = self._short(accepted) if missing else self._poor(accepted)
        first, later = _split({name: 2 * n for name, n in short.items()}, items)
        n_taken = 2 * missing or len(first)
        ordered = first + later
        return ordered[:n_taken], ordered[n_taken:]

    def cut(self, accepted: Sequence[T]) -> list[T]:
        """Returns as many texts as are wanted: of each class its quota, then the first of the others."""
        first, later = _split(self.quota, accepted)
        return (first + later)[: sum(self.quota.values())]

    def _missing_in_all(self, accepted: Sequence[Labelled]) -> int:
        return max(0, sum(self.quota.values()) - len(accepted))

    def _poor(self, accepted: Sequence[Labelled]) -> dict[str, int]:
        short = self._short(accepted)
        return {name: n for name, n in short.items() if self.quota[name] - n < self.quota[name] // 2}

    def _short(self, accepted: Sequence[Labelled]) -> Counter[str]:
        return Counter(self.quota) - Counter(class_name(item.labels) for item in accepted)


def _split(room: Mapping[str, int], items: Sequence[T]) -> tuple[list[T], list[T]]:
    left = Counter(room)
    first: list[T] = []
    later: list[T] = []
    for item in items:
        name = class_name(item.labels)
        (first if left[name] > 0 else later).append(item)
        left[name] -= 1
    return first, later
