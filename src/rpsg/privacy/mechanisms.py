"""The mechanisms: frozen public parameters, what they cost, and how they draw. A closed set.

A mechanism clips every contribution itself; its caller promises nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rpsg.errors import PrivacyError
from rpsg.privacy.accounting import GaussianEvent, NonPrivateEvent, PrivacyEvent, PureEvent
from rpsg.privacy.noise import NoiseSource
from rpsg.types import PrivateVariant

# Contributions are scaled to a public integer grid before noise: floating point leaks low bits.
GRID_STEPS = 2**10

Value_contra = TypeVar("Value_contra", contravariant=True)


class Mechanism(Protocol[Value_contra]):
    """What the ledger needs of a mechanism. Implemented in this module only."""

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """What a draw costs."""

    def sample(self, private_value: Value_contra, noise: NoiseSource) -> object:
        """Draws the released value: plain JSON data."""


def describe(mechanism: object) -> dict[str, object]:
    """Returns a mechanism's public parameters."""
    return asdict(mechanism)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyMax:
    """Chooses one candidate of each record by permute-and-flip.

    Each record has its own list of utilities, clipped to [0, 1]; replacing the record by any other
    changes each by at most 1, so with scale 2 / epsilon the choice is epsilon-DP (pure), given the
    candidates. A record may be drawn for once in a run, so the records compose in parallel.

    Attributes:
        epsilon: of one record's choice.
        n_candidates: K, the longest list allowed.
    """

    epsilon: float
    n_candidates: int

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One pure event: the records are disjoint."""
        return (PureEvent(epsilon=self.epsilon, relation="replace one record"),)

    def sample(self, private_value: Mapping[str, Sequence[float]], noise: NoiseSource) -> object:
        """Draws one index a record.

        Args:
            private_value: record id to utilities.
            noise: the source.

        Returns:
            Record id to index.

        Raises:
            PrivacyError: a list is empty or longer than K.
        """
        if not self.epsilon > 0:
            raise PrivacyError(f"epsilon must be positive (given: {self.epsilon})")
        drawn = {}
        for record_id, utilities in private_value.items():
            if not 1 <= len(utilities) <= self.n_candidates:
                raise PrivacyError(
                    f"a record has {len(utilities)} candidates; 1 to {self.n_candidates} allowed"
                )
            clipped = np.clip(np.nan_to_num(np.asarray(utilities, dtype=np.float64), nan=0.0), 0.0, 1.0)
            drawn[record_id] = noise.noisy_max(clipped.tolist(), 2 / self.epsilon)
        return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """Votes before noise, as (unit, item, weight) triples.

    Attributes:
        units: index of the voting unit, shape (n_votes,).
        items: index of the item voted for, shape (n_votes,).
        weights: weight before clipping, shape (n_votes,).
    """

    units: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]

    def __repr__(self) -> str:
        return "Votes(<private>)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianVotes:
    """Counts votes with discrete Gaussian noise.

    A unit's votes are added up per item, clipped together to L2 norm 1, scaled to a grid of 2^10
    steps and rounded toward zero, so adding or removing a unit moves the counts by at most 1.

    Attributes:
        noise_multiplier: noise std / L2 sensitivity.
        n_items: number of items voted on.
    """

    noise_multiplier: float
    n_items: int

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One Gaussian event of sensitivity 1."""
        return (GaussianEvent(sensitivity_l2=1.0, std=self.noise_multiplier, relation="add/remove one unit"),)

    def clipped_sum(self, votes: Votes) -> npt.NDArray[np.int64]:
        """Returns the exact counts in grid steps, shape (n_items,). Private."""
        weights = np.nan_to_num(votes.weights.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        inside = (votes.items >= 0) & (votes.items < self.n_items)
        # Several votes of one unit for one item are one contribution.
        pairs, where = np.unique(
            np.stack([votes.units[inside], votes.items[inside]]), axis=1, return_inverse=True
        )
        totals = np.bincount(
            where.ravel(), weights=np.clip(weights[inside], -1e6, 1e6), minlength=pairs.shape[1]
        )
        _, unit = np.unique(pairs[0], return_inverse=True)
        norms = np.sqrt(np.bincount(unit, weights=totals**2))
        scaled = totals / np.maximum(1.0, norms[unit]) if len(totals) else totals
        steps = np.trunc(scaled * GRID_STEPS).astype(np.int64)
        counts = np.zeros(self.n_items, dtype=np.int64)
        np.add.at(counts, pairs[1], steps)
        return counts

    def sample(self, private_value: Votes, noise: NoiseSource) -> object:
        """Draws the noisy counts, one a item.

        Raises:
            PrivacyError: the noise is not positive.
        """
        if not self.noise_multiplier > 0:
            raise PrivacyError(f"the noise multiplier must be positive (given: {self.noise_multiplier})")
        noisy = noise.gaussian(self.clipped_sum(private_value), self.noise_multiplier * GRID_STEPS)
        return (noisy / GRID_STEPS).tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class NonPrivate:
    """Passes plain data on without noise. Epsilon is infinite, and the ledger says so.

    Attributes:
        reason: what is passed on and why.
    """

    reason: str

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One non-private event."""
        return (NonPrivateEvent(reason=self.reason),)

    def sample(self, private_value: object, noise: NoiseSource) -> object:
        """Returns the value."""
        del noise
        return private_value


@dataclass(frozen=True, slots=True, kw_only=True)
class NonPrivateTexts:
    """Releases texts without noise, under fresh ids and in a secretly shuffled order.

    Attributes:
        reason: what the texts are.
    """

    reason: str

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One non-private event."""
        return (NonPrivateEvent(reason=self.reason),)

    def sample(self, private_value: Sequence[PrivateVariant], noise: NoiseSource) -> object:
        """Returns rows of id, text, labels, and (for the private map) the variant's id."""
        rows = []
        for index in noise.shuffle(len(private_value)):
            item = private_value[index]
            rows.append(
                {
                    "text_id": noise.token(),
                    "text": item.text,
                    "labels": dict(item.labels),
                    "variant_id": item.variant_id,
                }
            )
        return rows
