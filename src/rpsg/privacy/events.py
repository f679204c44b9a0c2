"""What was done to private data, in a form that costs can be recomputed from.

An event describes a mechanism, never an epsilon that someone computed earlier. It names the relation
under which it is stated; `as_group` restates it for several units changed at once.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from rpsg.errors import PrivacyError

Relation = Literal["add/remove one unit", "replace one unit", "replace one record"]
ADD_REMOVE: Relation = "add/remove one unit"
REPLACE: Relation = "replace one unit"
REPLACE_RECORD: Relation = "replace one record"


def _require(name: str, value: object, *, low: float, high: float = math.inf, above: bool = False) -> None:
    """Refuses what is no number in [low, high], or in (low, high] with `above`; infinity never passes."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(float(str(value))):
        raise PrivacyError(f"{name} must be a finite number (given: {value!r})")
    number = float(str(value))
    if not low <= number <= high or (above and number == low):
        raise PrivacyError(
            f"{name} must lie in {'(' if above else '['}{low:g}, {high:g}] (given: {number:g})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianEvent:
    """Gaussian noise on a sum.

    Attributes:
        sensitivity_l2: largest L2 change of the sum between neighbours.
        std: standard deviation of the noise, in the unit of the sum.
        relation: which data sets are neighbours.
        replace_l2: largest L2 change when one unit is replaced by another; by the triangle inequality at
            most twice `sensitivity_l2`, and sqrt(2) times it when contributions are not negative.
    """

    sensitivity_l2: float
    std: float
    relation: Relation
    replace_l2: float | None = None

    def __post_init__(self) -> None:
        _require("sensitivity_l2", self.sensitivity_l2, low=0)
        _require("std", self.std, low=0, above=True)
        if self.replace_l2 is not None:
            _require("replace_l2", self.replace_l2, low=self.sensitivity_l2, high=2 * self.sensitivity_l2)

    @property
    def mu(self) -> float:
        """Sensitivity over noise: the parameter of Gaussian differential privacy."""
        return self.sensitivity_l2 / self.std

    @property
    def rho(self) -> float:
        """Zero-concentrated differential privacy, exact for the discrete Gaussian too."""
        return self.mu**2 / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledGaussianEvent:
    """Repeated Gaussian sums over Poisson samples of the units, as in DP-SGD.

    Attributes:
        noise_multiplier: noise std / L2 sensitivity.
        sampling_rate: probability with which a unit enters each sum, independently.
        count: number of sums.
        relation: add/remove only; a replaced unit has no bound here.
    """

    noise_multiplier: float
    sampling_rate: float
    count: int
    relation: Relation = ADD_REMOVE

    def __post_init__(self) -> None:
        _require("noise_multiplier", self.noise_multiplier, low=0, above=True)
        _require("sampling_rate", self.sampling_rate, low=0, high=1, above=True)
        _require("count", self.count, low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PureEvent:
    """A mechanism that is epsilon-DP (pure)."""

    epsilon: float
    relation: Relation

    def __post_init__(self) -> None:
        _require("epsilon", self.epsilon, low=0)

    @property
    def rho(self) -> float:
        """epsilon-DP implies epsilon^2 / 2-zCDP (Bun & Steinke 2016, Proposition 1.4)."""
        return self.epsilon**2 / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedRangeEvent:
    """A mechanism whose privacy loss has a range of at most `eta`, such as the exponential mechanism.

    It is eta-DP (pure) and eta^2 / 8-zCDP (Cesar & Rogers 2021).
    """

    eta: float
    relation: Relation

    def __post_init__(self) -> None:
        _require("eta", self.eta, low=0)

    @property
    def epsilon(self) -> float:
        """Pure differential privacy."""
        return self.eta

    @property
    def rho(self) -> float:
        """Zero-concentrated differential privacy."""
        return self.eta**2 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ZcdpEvent:
    """A mechanism that is rho-zCDP."""

    rho: float
    relation: Relation

    def __post_init__(self) -> None:
        _require("rho", self.rho, low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaEvent:
    """Something that a unit's presence makes go wrong with probability at most `delta`.

    For example a key that only this unit holds is named. Replacing a unit doubles it: it may go wrong
    for the one that leaves and for the one that comes.
    """

    delta: float
    relation: Relation

    def __post_init__(self) -> None:
        _require("delta", self.delta, low=0, high=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NonPrivateEvent:
    """Something passed on without noise: epsilon is infinite."""

    reason: str


PrivacyEvent = (
    GaussianEvent
    | SampledGaussianEvent
    | PureEvent
    | BoundedRangeEvent
    | ZcdpEvent
    | DeltaEvent
    | NonPrivateEvent
)
EVENT_TYPES: dict[str, type[PrivacyEvent]] = {
    kind.__name__: kind
    for kind in (
        GaussianEvent,
        SampledGaussianEvent,
        PureEvent,
        BoundedRangeEvent,
        ZcdpEvent,
        DeltaEvent,
        NonPrivateEvent,
    )
}


def relation_of(event: PrivacyEvent) -> Relation | None:
    """Returns the relation an event is stated under; None for one that holds under none."""
    return None if isinstance(event, NonPrivateEvent) else event.relation


def as_group(event: PrivacyEvent, size: int) -> PrivacyEvent:
    """Restates an event for `size` units added or removed together.

    Raises:
        PrivacyError: the event cannot be restated on its own (delta-only and sampled events).
    """
    match event:
        case GaussianEvent():
            return replace(event, sensitivity_l2=event.sensitivity_l2 * size, replace_l2=None)
        case PureEvent():
            return replace(event, epsilon=event.epsilon * size)
        case BoundedRangeEvent():
            return replace(event, eta=event.eta * size)
        case ZcdpEvent():
            return replace(event, rho=event.rho * size**2)
        case NonPrivateEvent():
            return event
        case _:
            pass
    raise PrivacyError(
        f"a {type(event).__name__} has no group form of its own; use the (epsilon, delta) bound"
    )


def as_replacement(event: PrivacyEvent) -> PrivacyEvent:
    """Restates an add/remove event for one unit replaced by another."""
    if relation_of(event) in {None, REPLACE, REPLACE_RECORD}:
        return event
    if isinstance(event, GaussianEvent) and event.replace_l2 is not None:
        return replace(event, sensitivity_l2=event.replace_l2, relation=REPLACE)
    if isinstance(event, DeltaEvent):
        return replace(event, delta=2 * event.delta, relation=REPLACE)
    # Replacing is removing one and adding another: a group of two.
    pair = as_group(event, 2)
    return pair if isinstance(pair, NonPrivateEvent) else replace(pair, relation=REPLACE)
