"""Exact privacy accounting of the mechanisms in this package.

Epsilon is recomputed from events whenever it is shown, under one stated relation, by a named accountant.

Gaussian (Balle & Wang 2018, Theorem 8): a sum of L2 sensitivity D with noise of standard deviation
s is (epsilon, delta)-DP exactly when, with mu = D / s,

    delta >= Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu),

and adaptive composition adds mu^2 (Dong, Roth & Su 2022). rho-zCDP is converted by Proposition 12 of
Canonne, Kamath & Steinke (2020). Everything else goes through privacy loss distributions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Literal

from rpsg.errors import PrivacyError
from rpsg.privacy.events import (
    ADD_REMOVE,
    REPLACE,
    BoundedRangeEvent,
    DeltaEvent,
    GaussianEvent,
    NonPrivateEvent,
    PrivacyEvent,
    PureEvent,
    Relation,
    SampledGaussianEvent,
    ZcdpEvent,
    as_group,
    as_replacement,
    relation_of,
)
from rpsg.privacy.losses import GROUP_INTERVAL, loss_distribution

Accountant = Literal[
    "none needed",
    "exact Gaussian",
    "pure",
    "zCDP",
    "privacy loss distribution",
    "group privacy",
    "not private",
]
_MU_MAX = 1e4
_SOLVER_MARGIN = 1e-10
_GROUP_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A privacy figure: never without its relation, unit size and accountant.

    Attributes:
        epsilon: infinite where nothing holds.
        delta: at which epsilon was computed.
        relation: which data sets are neighbours.
        group: how many units differ.
        accountant: how epsilon was computed.
    """

    epsilon: float
    delta: float
    relation: Relation
    group: int
    accountant: Accountant


# --- one Gaussian --------------------------------------------------------------------------------


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Returns the smallest delta of a mu-GDP mechanism at `epsilon`."""
    from scipy.special import log_ndtr

    if mu <= 0:
        return 0.0
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    # exp(first) - exp(second) without losing the small difference.
    return float(math.exp(first) * -math.expm1(min(0.0, second - first)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Returns the smallest epsilon >= 0 of a mu-GDP mechanism at `delta`."""
    from scipy.optimize import brentq

    _check_delta(delta)
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1
    return float(brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, high, xtol=1e-12))


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Returns the largest mu whose mechanism is (epsilon, delta)-DP."""
    from scipy.optimize import brentq

    _check_delta(delta)
    if not 0 < epsilon < math.inf:
        raise PrivacyError(f"epsilon must be a positive number (given: {epsilon})")
    return float(brentq(lambda mu: gaussian_delta(mu, epsilon) - delta, 1e-9, _MU_MAX, xtol=1e-12))


# --- zero-concentrated differential privacy ------------------------------------------------------


def zcdp_epsilon(rho: float, delta: float) -> float:
    """Returns the smallest epsilon that rho-zCDP implies at `delta`.

    epsilon = min over a > 1 of a rho + (ln(1/delta) + (a-1) ln(1 - 1/a) - ln a) / (a-1).
    """
    from scipy.optimize import minimize_scalar

    _check_delta(delta)
    if rho <= 0:
        return 0.0

    def at(log_excess: float) -> float:
        excess = math.exp(log_excess)
        order = 1 + excess
        # ln(1 - 1/a) = ln((a-1)/a)
        return order * rho + math.log(excess / order) + (math.log(1 / delta) - math.log(order)) / excess

    start = 0.5 * math.log(math.log(1 / delta) / rho)
    found = minimize_scalar(at, bounds=(start - 8, start + 8), method="bounded", options={"xatol": 1e-12})
    return max(0.0, float(found.fun))


def zcdp_rho(epsilon: float, delta: float) -> float:
    """Returns the largest rho whose zCDP implies (epsilon, delta)-DP."""
    from scipy.optimize import brentq

    if not 0 < epsilon < math.inf:
        raise PrivacyError(f"epsilon must be a positive number (given: {epsilon})")
    return float(brentq(lambda rho: zcdp_epsilon(rho, delta) - epsilon, 1e-14, epsilon + 1, xtol=1e-14))


# --- composition ---------------------------------------------------------------------------------


def compose(
    events: Sequence[PrivacyEvent], delta: float, *, relation: Relation = ADD_REMOVE, group: int = 1
) -> Figure:
    """Returns epsilon of all events together at `delta`.

    The events' parameters must be fixed in advance; which data they read may depend on earlier results.

    Args:
        events: what was or will be done.
        delta: of the whole.
        relation: the figure's relation. Add/remove events can be restated for a replaced unit; nothing
            can be restated for add/remove.
        group: units that differ.

    Raises:
        PrivacyError: an event does not hold under the relation, or delta is no probability.
    """
    _check_delta(delta)
    if not isinstance(group, int) or group < 1:
        raise PrivacyError(f"a group is a whole number of units, at least one (given: {group})")
    if any(isinstance(event, NonPrivateEvent) for event in events):
        return _figure(math.inf, delta, relation, group, "not private")
    stated = {relation_of(event) for event in events}
    if stated - {relation} and (relation != REPLACE or stated - {ADD_REMOVE, REPLACE}):
        names = sorted(str(name) for name in stated)
        raise PrivacyError(f"events stated under {names} give no figure under {relation!r}")
    if relation == REPLACE and any(isinstance(event, SampledGaussianEvent) for event in events):
        # No tight form is known for Poisson samples: replacing is removing one unit and adding another.
        return _figure(_group_epsilon(events, delta, 2 * group), delta, relation, group, "group privacy")
    restated = [as_replacement(event) for event in events] if relation == REPLACE else list(events)
    if group > 1 and any(isinstance(event, SampledGaussianEvent) for event in events):
        return _sampled_group(events, delta, group)
    if group > 1 and any(isinstance(event, DeltaEvent) for event in events):
        return _figure(_group_epsilon(restated, delta, group), delta, relation, group, "group privacy")
    epsilon, accountant = _compose_one(
        [as_group(event, group) for event in restated] if group > 1 else restated, delta
    )
    return _figure(epsilon, delta, relation, group, accountant)


def _sampled_group(events: Sequence[PrivacyEvent], delta: float, group: int) -> Figure:
    if any(isinstance(event, DeltaEvent) for event in events):
        return _figure(_group_epsilon(events, delta, group), delta, ADD_REMOVE, group, "group privacy")
    epsilon = loss_distribution(tuple(events), group, GROUP_INTERVAL).epsilon(delta)
    return _figure(epsilon, delta, ADD_REMOVE, group, "privacy loss distribution")


def _figure(epsilon: float, delta: float, relation: Relation, group: int, accountant: Accountant) -> Figure:
    return Figure(epsilon=epsilon, delta=delta, relation=relation, group=group, accountant=accountant)


def _compose_one(events: Sequence[PrivacyEvent], delta: float) -> tuple[float, Accountant]:
    """Epsilon of events under the relation they are stated in."""
    rest = [event for event in events if not isinstance(event, DeltaEvent)]
    left = delta - sum(event.delta for event in events if isinstance(event, DeltaEvent))
    if left <= 0:
        return math.inf, "not private"
    if not rest:
        return 0.0, "none needed"
    if all(isinstance(event, GaussianEvent) for event in rest):
        mu = math.sqrt(sum(event.mu**2 for event in rest if isinstance(event, GaussianEvent)))
        return gaussian_epsilon(mu, left), "exact Gaussian"
    options: list[tuple[float, Accountant]] = []
    if all(isinstance(event, PureEvent | BoundedRangeEvent) for event in rest):
        total = sum(event.epsilon for event in rest if isinstance(event, PureEvent | BoundedRangeEvent))
        options.append((total, "pure"))
    if not any(isinstance(event, SampledGaussianEvent) for event in rest):
        rho = sum(
            event.rho for event in rest if not isinstance(event, SampledGaussianEvent | NonPrivateEvent)
        )
        options.append((zcdp_epsilon(rho, left), "zCDP"))
    if not any(isinstance(event, ZcdpEvent) for event in rest):
        options.append((loss_distribution(tuple(rest)).epsilon(left), "privacy loss distribution"))
    if not options:
        raise PrivacyError("zCDP events and sampled events of one run cannot be added up")
    return min(options)


def _group_epsilon(events: Sequence[PrivacyEvent], delta: float, size: int) -> float:
    """Group privacy of any (epsilon, delta) curve: (m e, (exp(m e) - 1) / (exp(e) - 1) d) (Vadhan 2017)."""
    spent = sum(event.delta for event in events if isinstance(event, DeltaEvent))
    rest = tuple(event for event in events if not isinstance(event, DeltaEvent))
    best = math.inf
    if delta <= spent:
        return best
    curve = _curve_of(rest)
    for i in range(1, _GROUP_STEPS + 1):
        # Geometric steps from delta down to what the delta-only events need.
        one = spent + (delta - spent) * math.exp(-40 * i / _GROUP_STEPS)
        if one <= spent:
            continue
        epsilon = curve(one - spent)
        if math.isinf(epsilon) or size * epsilon > 700:
            continue
        growth = size if epsilon == 0 else math.expm1(size * epsilon) / math.expm1(epsilon)
        if growth * one <= delta:
            best = min(best, size * epsilon)
    return best


def _curve_of(events: tuple[PrivacyEvent, ...]) -> Callable[[float], float]:
    """Returns epsilon of these events, none of them delta-only, as a function of delta."""
    if any(isinstance(event, SampledGaussianEvent) for event in events):
        return loss_distribution(events).epsilon
    # Nothing else that needs a loss distribution, where that is valid too: zCDP is quick.
    rho = sum(
        event.rho
        for event in events
        if not isinstance(event, SampledGaussianEvent | NonPrivateEvent | DeltaEvent)
    )
    if all(isinstance(event, GaussianEvent) for event in events):
        return lambda delta: gaussian_epsilon(math.sqrt(2 * rho), delta)
    return lambda delta: zcdp_epsilon(rho, delta)


# --- planning ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRelease:
    """One Gaussian release of a plan.

    Attributes:
        label: its name.
        share: of the budget (of mu^2), relative to the other releases.
        count: how often it happens.
        delta: what each costs beside its noise, for a thresholded release.
    """

    label: str
    share: float = 1.0
    count: int = 1
    delta: float = 0.0


def calibrate(epsilon: float, delta: float, releases: Sequence[PlannedRelease]) -> dict[str, float]:
    """Solves the noise of a whole plan: composed adaptively, all releases are (epsilon, delta)-DP.

    Args:
        epsilon: of the whole plan.
        delta: of the whole plan; thresholded releases take theirs from it.
        releases: what the plan holds; labels differ.

    Returns:
        Label to noise multiplier (noise std / L2 sensitivity).

    Raises:
        PrivacyError: nothing is planned, a share is not positive, labels repeat, or the delta is used up.
    """
    if not releases or any(not 0 < item.share < math.inf or item.count < 1 for item in releases):
        raise PrivacyError("a plan needs releases, each with a positive share and count")
    if any(not 0 <= item.delta < 1 for item in releases):
        raise PrivacyError("a release's own delta lies between 0 and 1")
    if len({release.label for release in releases}) < len(releases):
        raise PrivacyError("two releases of the plan have one label; name each differently")
    spent = sum(release.delta * release.count for release in releases)
    if not spent < delta:
        raise PrivacyError(
            f"thresholded releases need delta {spent:g} of {delta:g}; raise delta or lower theirs"
        )
    total = sum(release.share * release.count for release in releases)
    # A hair less than what is allowed, so that figures computed back from it round up to what was asked.
    mu = gaussian_mu(epsilon, delta - spent) * (1 - _SOLVER_MARGIN)
    return {release.label: math.sqrt(total / release.share) / mu for release in releases}


def calibrate_gaussian(epsilon: float, delta: float, *, n_releases: int = 1) -> float:
    """Returns the noise multiplier (noise std / L2 sensitivity) that `n_releases` share."""
    return calibrate(epsilon, delta, [PlannedRelease(label="all", count=n_releases)])["all"]


# --- in plain words ------------------------------------------------------------------------------


def accuracy_bound(epsilon: float, delta: float = 0.0) -> float:
    """Returns how often a guess whether a unit was in the data can be right, at even odds.

    (1 + TV) / 2 with the total variation of (epsilon, delta)-DP, that is
    (exp(epsilon) + delta) / (exp(epsilon) + 1) (Kairouz, Oh & Viswanath 2015).
    """
    if math.isinf(epsilon):
        return 1.0
    inverse = math.exp(-epsilon)
    return (1 + delta * inverse) / (1 + inverse)


def true_positive_bound(epsilon: float, delta: float, *, false_positive: float) -> float:
    """Returns the largest true-positive rate of any membership test at this false-positive rate.

    (epsilon, delta)-DP bounds it by exp(epsilon) a + delta and by 1 - exp(-epsilon) (1 - delta - a)
    (Kairouz, Oh & Viswanath 2015).
    """
    if math.isinf(epsilon):
        return 1.0
    first = math.exp(min(epsilon, 700.0)) * false_positive + delta
    second = 1 - math.exp(-epsilon) * (1 - delta - false_positive)
    return min(1.0, first, second)


def gaussian_true_positive(mu: float, delta: float, *, false_positive: float) -> float:
    """Returns the largest true-positive rate of a membership test on mu-GDP releases and a delta-only term.

    delta + (1 - delta) Phi(Phi^-1(a / (1 - delta)) + mu) (Dong, Roth & Su 2022, Proposition 3.1).
    """
    from scipy.special import ndtr, ndtri

    level = min(1.0, false_positive / (1 - delta))
    return float(delta + (1 - delta) * ndtr(ndtri(level) + mu))


def gaussian_accuracy(mu: float, delta: float) -> float:
    """Returns `accuracy_bound` of mu-GDP releases and a delta-only term, exactly."""
    from scipy.special import ndtr

    return float(delta + (1 - delta) * ndtr(mu / 2))


def show(value: float) -> str:
    """Writes a number with all its digits: rounding a privacy figure for display could round it down."""
    text = repr(float(value))
    return text.removesuffix(".0")


def round_up(value: float, digits: int) -> float:
    """Rounds a privacy figure up, so that what is shown is never smaller than what holds."""
    if math.isinf(value):
        return value
    # On the decimal digits of the number: 1.1 stays 1.1, and the least excess over 4 becomes 4.001.
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyError(f"delta must lie between 0 and 1 (given: {delta})")
