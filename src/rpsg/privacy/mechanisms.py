"""The mechanisms: frozen public parameters, what they cost, and how they draw. A closed set.

A mechanism clips every contribution itself; its caller promises nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rpsg.errors import PrivacyError
from rpsg.privacy.events import (
    ADD_REMOVE,
    REPLACE_RECORD,
    DeltaEvent,
    GaussianEvent,
    PrivacyEvent,
    PureEvent,
)
from rpsg.privacy.gradients import SampledGradients
from rpsg.privacy.noise import NoiseSource
from rpsg.privacy.plain import NonPrivate, NonPrivateTexts, PaidTexts

# Contributions are scaled to a public integer grid before noise: floating point leaks low bits.
GRID_STEPS = 2**10
# From this many steps on, the closed form of the continuous Gaussian holds for the discrete one to 1e-3.
MIN_NOISE_STEPS = 256
_LARGEST_WEIGHT = 1e6
_SQRT2 = math.sqrt(2)

Value_contra = TypeVar("Value_contra", contravariant=True)
IntArray = npt.NDArray[np.int64]


class Mechanism(Protocol[Value_contra]):
    """What the ledger needs of a mechanism. Implemented in this package only."""

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """What a draw costs."""

    def sample(self, private_value: Value_contra, noise: NoiseSource) -> object:
        """Draws the released value: plain JSON data."""


def describe(mechanism: object) -> dict[str, object]:
    """Returns the public parameters of a mechanism or event, as they are: nothing is unfolded."""
    return {part.name: getattr(mechanism, part.name) for part in fields(mechanism)}  # type: ignore[arg-type]


# --- sums ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRows:
    """What each unit contributes to each item, not yet clipped, as (unit, item, weight) triples.

    Attributes:
        units: index of the contributing unit, shape (n,).
        items: index of the item, shape (n,).
        weights: shape (n,).
    """

    units: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]

    def __repr__(self) -> str:
        return "PrivateRows(<private>)"

    def among(self, places: Sequence[int]) -> "PrivateRows":
        """Returns the same contributions to items that stand at other places."""
        items = np.asarray(places, dtype=np.int64)[self.items]
        return PrivateRows(units=self.units, items=items, weights=self.weights)


def clip_to_grid(rows: PrivateRows, n_items: int) -> tuple[IntArray, IntArray]:
    """Clips each unit's contributions to L2 norm 1, at least 0, in grid steps rounded toward zero.

    Weights of one unit for one item are added up; what is not a number, is negative, or names no item
    counts as nothing.

    Returns:
        Items and steps, each of shape (n_pairs,); a unit's steps have an L2 norm of at most 2^10, exactly.
    """
    weights = np.nan_to_num(rows.weights.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    used = (rows.items >= 0) & (rows.items < n_items) & (weights > 0)
    # Dense numbers, so that the product below cannot overflow.
    _, units = np.unique(rows.units[used], return_inverse=True)
    pairs, where = np.unique(units.astype(np.int64) * n_items + rows.items[used], return_inverse=True)
    totals = np.bincount(where, weights=np.minimum(weights[used], _LARGEST_WEIGHT), minlength=len(pairs))
    _, unit = np.unique(pairs // max(1, n_items), return_inverse=True)
    norms = np.sqrt(np.bincount(unit, weights=totals**2))
    scaled = totals / np.maximum(1.0, norms[unit]) if len(totals) else totals
    steps = np.trunc(scaled * GRID_STEPS).astype(np.int64)
    # Division may round up by one part in 2^52: the bound is checked in integers, where it is exact.
    squares = np.bincount(unit, weights=steps**2).astype(np.int64)
    over = (squares > GRID_STEPS**2)[unit] if len(totals) else np.zeros(0, dtype=bool)
    return pairs % max(1, n_items), np.where(over, np.maximum(steps - 1, 0), steps)


def _check_noise(noise_multiplier: float) -> None:
    if not noise_multiplier * GRID_STEPS >= MIN_NOISE_STEPS:
        raise PrivacyError(
            f"the noise multiplier must be at least {MIN_NOISE_STEPS / GRID_STEPS:g} (given: "
            f"{noise_multiplier:g}): with less noise the Gaussian formula does not hold for whole steps; "
            "ask for a smaller epsilon"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianSum:
    """Sums of clipped unit contributions, one an item, with discrete Gaussian noise.

    A unit's contributions are at least 0 and clipped together to L2 norm 1, so adding or removing a unit
    moves the sums by at most 1, and replacing one by at most sqrt(2).

    Attributes:
        noise_multiplier: noise std / L2 sensitivity.
        n_items: number of sums.

    Raises:
        PrivacyError: the noise is below 256 grid steps.
    """

    noise_multiplier: float
    n_items: int

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One Gaussian event of sensitivity 1."""
        return (_unit_sum(self.noise_multiplier),)

    def clipped_sum(self, private_rows: PrivateRows) -> IntArray:
        """Returns the exact sums in grid steps, shape (n_items,). Private."""
        items, steps = clip_to_grid(private_rows, self.n_items)
        sums = np.zeros(self.n_items, dtype=np.int64)
        np.add.at(sums, items, steps)
        return sums

    def sample(self, private_value: PrivateRows, noise: NoiseSource) -> object:
        """Draws the noisy sums, one an item."""
        noisy = noise.gaussian(self.clipped_sum(private_value), self.noise_multiplier * GRID_STEPS)
        return (noisy / GRID_STEPS).tolist()


def _unit_sum(noise_multiplier: float) -> GaussianEvent:
    return GaussianEvent(sensitivity_l2=1.0, std=noise_multiplier, relation=ADD_REMOVE, replace_l2=_SQRT2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdedKeys:
    """Names the keys, such as phrases, that many units hold, and roughly how many.

    A unit holds up to `max_keys` keys (the first in sorted order) with weight 1 / sqrt(their number)
    each. Noise is added to every key's weight, and keys at or below the threshold are not named.

    Proof (Gopi et al. 2020, Theorem 5.1). Neighbours differ by unit u; noise is independent from key to
    key. On keys that others hold too the release is a Gaussian sum of sensitivity 1. Of the t keys that
    only u holds, each of weight at most 1 / sqrt(t), one is named with probability at most
    1 - P[noise <= threshold - 1/sqrt(t)]^t <= `delta`. With u, an event has at most that much more than
    on the common keys; without u, x = exp(e) P[common keys] becomes at most
    min(1, x / (1 - delta)) <= x + delta.
    Discrete noise reaches x + 1 steps no more often than continuous noise reaches x (Canonne, Kamath &
    Steinke 2020, Proposition 25), and must exceed the threshold by a step.

    Attributes:
        noise_multiplier: noise std / L2 sensitivity.
        max_keys: most keys of one unit.
        delta: probability that a key of one unit alone is named.
    """

    noise_multiplier: float
    max_keys: int
    delta: float

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        if not isinstance(self.max_keys, int) or self.max_keys < 1 or not 0 < self.delta < 0.5:
            raise PrivacyError(
                "max_keys must be at least 1 and delta between 0 and 0.5 "
                f"(given: {self.max_keys}, {self.delta})"
            )

    @property
    def threshold(self) -> float:
        """Weights at or below this are not released; a whole number of grid steps."""
        from scipy.special import ndtri_exp

        worst = 0.0
        for t in range(1, self.max_keys + 1):
            # P[noise <= x]^t >= 1 - delta: ln P = ln(1 - delta) / t.
            quantile = float(ndtri_exp(math.log1p(-self.delta) / t))
            worst = max(worst, 1 / math.sqrt(t) + self.noise_multiplier * quantile)
        return math.ceil(worst * GRID_STEPS) / GRID_STEPS

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """A Gaussian event and the chance of naming a unit's own key."""
        return (_unit_sum(self.noise_multiplier), DeltaEvent(delta=self.delta, relation=ADD_REMOVE))

    def sample(self, private_value: Mapping[str, Iterable[str]], noise: NoiseSource) -> object:
        """Draws key to noisy weight, in the keys' alphabetical order.

        Args:
            private_value: unit to the keys it holds.
            noise: the source.
        """
        held = [sorted(set(keys))[: self.max_keys] for keys in private_value.values()]
        names = sorted({key for keys in held for key in keys})
        index = {key: i for i, key in enumerate(names)}
        rows = PrivateRows(
            units=np.repeat(np.arange(len(held)), [len(keys) for keys in held]),
            items=np.asarray([index[key] for keys in held for key in keys], dtype=np.int64),
            weights=np.asarray([1 / math.sqrt(len(keys)) for keys in held for _ in keys], dtype=np.float64),
        )
        items, steps = clip_to_grid(rows, len(names))
        sums = np.zeros(len(names), dtype=np.int64)
        np.add.at(sums, items, steps)
        noisy = noise.gaussian(sums, self.noise_multiplier * GRID_STEPS) / GRID_STEPS
        return {key: float(value) for key, value in zip(names, noisy, strict=True) if value > self.threshold}


# --- choices -------------------------------------------------------------------------------------


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

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)
        if not isinstance(self.n_candidates, int) or self.n_candidates < 1:
            raise PrivacyError(f"n_candidates must be a whole number from 1 on (given: {self.n_candidates})")

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One pure event: the records are disjoint."""
        return (PureEvent(epsilon=self.epsilon, relation=REPLACE_RECORD),)

    def sample(self, private_value: Mapping[str, Sequence[float]], noise: NoiseSource) -> object:
        """Draws record id to index.

        Args:
            private_value: record id to utilities.
            noise: the source.

        Raises:
            PrivacyError: a list is empty or longer than K.
        """
        drawn = {}
        for record_id, utilities in private_value.items():
            if not 1 <= len(utilities) <= self.n_candidates:
                raise PrivacyError(
                    f"a record has {len(utilities)} candidates; 1 to {self.n_candidates} allowed"
                )
            clipped = np.clip(np.nan_to_num(np.asarray(utilities, dtype=np.float64), nan=0.0), 0.0, 1.0)
            # The next larger number: division may round the scale down, and epsilon up.
            scale = math.nextafter(2 / self.epsilon, math.inf)
            drawn[record_id] = noise.noisy_max(clipped.tolist(), scale)
        return drawn


def _check_epsilon(epsilon: float) -> None:
    if not 0 < epsilon < math.inf:
        raise PrivacyError(f"epsilon must be a positive number (given: {epsilon})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateQuantile:
    """Chooses a quantile of the units' values from a public list of candidates.

    A unit counts once, with the median of its values. A candidate c scores minus the distance of its
    rank from the wanted one, in thousandths, -|(1000 - q) #{v < c} - q #{v > c}| with q the quantile in
    thousandths. Adding or removing a unit changes a score by at most max(q, 1000 - q), so
    permute-and-flip with twice that over epsilon is epsilon-DP (pure).

    Attributes:
        quantile: in [0, 1]; rounded to thousandths.
        epsilon: of the choice.
        candidates: public values, in order.
    """

    quantile: float
    epsilon: float
    candidates: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)
        object.__setattr__(self, "candidates", tuple(self.candidates))
        increasing = all(a < b for a, b in zip(self.candidates, self.candidates[1:], strict=False))
        increasing = increasing and all(math.isfinite(value) for value in self.candidates)
        if not 0 <= self.quantile <= 1 or not self.candidates or not increasing:
            raise PrivacyError("a quantile lies in [0, 1], and its candidates are increasing numbers")

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One pure event."""
        return (PureEvent(epsilon=self.epsilon, relation=ADD_REMOVE),)

    def scores(self, private_value: Mapping[str, Sequence[float]]) -> list[int]:
        """Returns the exact score of each candidate. Private."""
        usable = [[v for v in values if math.isfinite(v)] for values in private_value.values()]
        medians = np.sort([float(np.median(values)) for values in usable if values])
        part = round(1000 * self.quantile)
        below = np.searchsorted(medians, self.candidates, side="left")
        above = len(medians) - np.searchsorted(medians, self.candidates, side="right")
        return [-abs((1000 - part) * int(b) - part * int(a)) for b, a in zip(below, above, strict=True)]

    def sample(self, private_value: Mapping[str, Sequence[float]], noise: NoiseSource) -> object:
        """Draws one of the candidates.

        Args:
            private_value: unit to its values.
            noise: the source.
        """
        part = round(1000 * self.quantile)
        scale = math.nextafter(2 * max(part, 1000 - part) / self.epsilon, math.inf)
        return self.candidates[noise.noisy_max(self.scores(private_value), scale)]


# The closed set, by name: a line of a ledger or card must name one of these.
MECHANISMS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        GaussianSum,
        ThresholdedKeys,
        NoisyMax,
        PrivateQuantile,
        SampledGradients,
        NonPrivate,
        NonPrivateTexts,
        PaidTexts,
    )
}
